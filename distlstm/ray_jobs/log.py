"""The log of a job: what its command prints, to both of its outputs."""

import asyncio
import queue
import re
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING

from distlstm.errors import RunError
from distlstm.ray_jobs.connection import NoSuchJobError, answers
from distlstm.ray_jobs.job import job_at

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_RAYS_LINES = re.compile(
    r"(?:[^\n]*\sINFO job_manager\.py[^\n]*\n|Running entrypoint for job [^\n]*\n)*"
)
"""Ray's own lines at the begin of a log, which only repeat the command."""
_WAITS = (1, 2, 5, 10, 20, 30, 60, 60)
_SECONDS_OF_SILENCE = 60
_SECONDS_TO_LAST_STATE = 60
_SECONDS_BETWEEN_LOOKS = 0.5


def log_of(client: "JobSubmissionClient", id: str) -> str:  # noqa: A002 (as Ray names it)
    """What a job has printed so far."""
    with answers(client.get_address(), job=id):
        return _without_rays_lines(client.get_job_logs(id))


def followed(client: "JobSubmissionClient", id: str) -> Iterator[str]:  # noqa: A002
    """What a job prints, piece by piece, until it has ended.

    A lost connection is opened again, for some minutes. So is one that is silent for long, because
    it may be dead: a machine that has slept is not told.

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
            if _has_ended(client, id):
                return
        except queue.Empty:
            continue
        except NoSuchJobError:
            raise
        except Exception as error:
            seconds = next(waits, None)
            if seconds is None:
                raise RunError(
                    "The cluster is not reached any more. The job may go on: "
                    f"distlstm jobs logs -f {id}"
                ) from error
            time.sleep(seconds)


def _pieces(client: "JobSubmissionClient", id: str) -> Iterator[str]:  # noqa: A002
    """The pieces of a log from its begin, until the job has ended.

    Ray's stream is asynchronous. It runs in a thread, as the caller may have an event loop of its
    own, such as that of a notebook.

    Raises:
        queue.Empty: nothing has come for a minute.
    """
    received: queue.Queue[str | Exception | None] = queue.Queue()
    loop = asyncio.new_event_loop()
    task = loop.create_task(_receive(client, id, received))
    thread = threading.Thread(target=_run, args=(loop, task), daemon=True)
    thread.start()
    try:
        while (piece := received.get(timeout=_SECONDS_OF_SILENCE)) is not None:
            if isinstance(piece, Exception):
                raise piece
            yield piece
    finally:
        with suppress(RuntimeError):  # it has ended by itself
            loop.call_soon_threadsafe(task.cancel)


def _run(loop: asyncio.AbstractEventLoop, task: "asyncio.Task[None]") -> None:
    with suppress(asyncio.CancelledError):
        loop.run_until_complete(task)
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


async def _receive(
    client: "JobSubmissionClient",
    id: str,  # noqa: A002
    received: "queue.Queue[str | Exception | None]",
) -> None:
    try:
        async for piece in client.tail_job_logs(id):
            received.put(piece)
        received.put(None)
    except Exception as error:
        received.put(error)


def _has_ended(client: "JobSubmissionClient", id: str) -> bool:  # noqa: A002
    """Wait for the last state of a job whose log has ended; False if it goes on after all."""
    until = time.monotonic() + _SECONDS_TO_LAST_STATE
    while time.monotonic() < until:
        if job_at(client, id).has_ended:
            return True
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return False


def _without_rays_lines(text: str) -> str:
    found = _RAYS_LINES.match(text)
    return text if found is None else text[found.end() :]
