"""The log of a job: what its command prints, to both of its outputs."""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from distlstm.errors import RunError
from distlstm.ray_jobs.connection import answers
from distlstm.ray_jobs.job import job_at

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_RAYS_LINES = re.compile(
    r"(?:[^\n]* INFO job_manager\.py[^\n]*\n|Running entrypoint for job [^\n]*\n)*"
)
"""Ray's own lines at the begin of a log, which only repeat the command."""
_WAITS = (1, 2, 5, 10, 20, 30, 60, 60)
_SECONDS_TO_LAST_STATE = 60


def log_of(client: "JobSubmissionClient", id: str) -> str:  # noqa: A002
    """What a job has printed so far."""
    with answers(client.get_address(), job=id):
        return _without_rays_lines(client.get_job_logs(id))


def followed(client: "JobSubmissionClient", id: str) -> Iterator[str]:  # noqa: A002
    """What a job prints, piece by piece, until it has ended.

    A lost connection is opened again, for some minutes.

    Raises:
        UserError: there is no such job.
        RunError: the cluster is not reached any more. The job goes on without us.
    """
    job_at(client, id)
    shown, waits = 0, iter(_WAITS)
    while True:
        try:
            seen = 0
            for piece in _pieces(client, id):
                new = piece[max(0, shown - seen) :]
                seen += len(piece)
                if new:
                    shown, waits = seen, iter(_WAITS)
                    yield _without_rays_lines(new)
            if job_at(client, id).has_ended or _ends_soon(client, id):
                return
        except Exception as error:
            seconds = next(waits, None)
            if seconds is None:
                raise RunError(
                    "The cluster is not reached any more. The job may go on: "
                    f"distlstm jobs logs -f {id}"
                ) from error
            time.sleep(seconds)


def _pieces(client: "JobSubmissionClient", id: str) -> Iterator[str]:  # noqa: A002
    """The pieces of the log from its begin, as Ray sends them."""
    with asyncio.Runner() as runner:
        stream: AsyncIterator[str] = client.tail_job_logs(id)
        try:
            while (piece := runner.run(_next(stream))) is not None:
                yield piece
        finally:
            with suppress(Exception):
                runner.run(stream.aclose())  # type: ignore[attr-defined]


async def _next(stream: AsyncIterator[str]) -> str | None:
    return await anext(stream, None)


def _ends_soon(client: "JobSubmissionClient", id: str) -> bool:  # noqa: A002
    """Wait for the last state of a job whose log has ended; False if it goes on after all."""
    until = time.monotonic() + _SECONDS_TO_LAST_STATE
    while time.monotonic() < until:
        if job_at(client, id).has_ended:
            return True
        time.sleep(0.5)
    return False


def _without_rays_lines(text: str) -> str:
    found = _RAYS_LINES.match(text)
    return text if found is None else text[found.end() :]
