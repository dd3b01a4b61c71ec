"""A job of the cluster: started, listed, and stopped."""

import secrets
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from distlstm import __version__
from distlstm.errors import RunError
from distlstm.ray_jobs.connection import answers
from distlstm.ray_jobs.package import Parcel, packed
from distlstm.ray_jobs.plan import JobPlan
from distlstm.ray_jobs.progress import progress_in

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

_MARK = "distlstm"
"""Key of the metadata that our jobs have, and no others."""
_LINES = 120
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_TO_START = 60
_SECONDS_TO_END = 180
_NOT_YET = "No available agent"
"""What Ray answers before the agent of a node has started."""
_EXIT_CODES = {"succeeded": 0, "stopped": 130}
_ENDED = ("succeeded", "failed", "stopped")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job, as it is at one moment."""

    id: str
    name: str
    command: str
    """The command, without the values of `--set`."""
    state: str
    """`pending`, `running`, `succeeded`, `failed` or `stopped`."""
    progress: str
    """How far it is, such as `epoch 3 of up to 20`; empty if its log does not show it."""
    figure: str
    """Its best metric so far, or its speed."""
    output: str | None
    started: datetime | None
    ended: datetime | None
    exit_code: int | None
    """Of the command, 130 if it was stopped; None as long as it runs, or if it never began."""
    message: str
    """Why it failed, if the command could not be started."""

    @property
    def has_ended(self) -> bool:
        """Whether it is in its last state."""
        return self.state in _ENDED

    def to_json(self) -> dict[str, Any]:
        """The object that `jobs status --json` prints."""
        times = {"started": _iso(self.started), "ended": _iso(self.ended)}
        return asdict(self) | times


def started(client: "JobSubmissionClient", plan: JobPlan, *, name: str | None) -> str:
    """Send a command to the cluster; returns the id of its job.

    A cluster that has just started answers before it can take jobs, so this waits for a minute.
    """
    until = time.monotonic() + _SECONDS_TO_START
    with packed(plan) as parcel, answers(client.get_address()):
        while True:
            try:
                return _submitted(client, plan, parcel, name=name)
            except RuntimeError as error:
                if _NOT_YET not in str(error) or time.monotonic() > until:
                    raise
            time.sleep(_SECONDS_BETWEEN_LOOKS)


def _submitted(
    client: "JobSubmissionClient", plan: JobPlan, parcel: Parcel, *, name: str | None
) -> str:
    submission: str = client.submit_job(
        submission_id=f"{plan.command}-{secrets.token_hex(4)}",
        entrypoint=plan.entrypoint,
        runtime_env=parcel.runtime_env(),
        metadata={
            _MARK: __version__,
            "name": name or plan.command,
            "command": plan.shown,
            "output": plan.output or "",
        },
    )
    return submission


def jobs_of(client: "JobSubmissionClient", *, last: int) -> list[Job]:
    """The last jobs of distlstm, the newest first."""
    with answers(client.get_address()):
        found = [d for d in client.list_jobs() if d.submission_id and _MARK in (d.metadata or {})]
        found.sort(key=lambda details: details.start_time or 0, reverse=True)
        return [_job(client, details) for details in found[:last]]


def job_at(client: "JobSubmissionClient", id: str) -> Job:  # noqa: A002 (as Ray names it)
    """A job by its id."""
    with answers(client.get_address(), job=id):
        return _job(client, client.get_job_info(id))


def stopped(client: "JobSubmissionClient", id: str) -> Job:  # noqa: A002
    """Stop a job as Ctrl-C would, and wait for its end; the job as it then is.

    Raises:
        RunError: it has not ended in three minutes.
    """
    with answers(client.get_address(), job=id):
        client.stop_job(id)
    until = time.monotonic() + _SECONDS_TO_END
    while not (job := job_at(client, id)).has_ended:
        if time.monotonic() > until:
            raise RunError(f"{id} has been asked to stop and is still {job.state}. Look again.")
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    return job


def _job(client: "JobSubmissionClient", details: "JobDetails") -> Job:
    metadata = details.metadata or {}
    state = str(details.status.value).lower()
    progress = progress_in(_last_lines(client, details))
    return Job(
        id=details.submission_id or "",
        name=metadata.get("name", ""),
        command=metadata.get("command", ""),
        state=state,
        progress=progress.done,
        figure=progress.figure,
        output=metadata.get("output") or None,
        started=_time(details.start_time),
        ended=_time(details.end_time),
        exit_code=_exit_code(details.driver_exit_code, state),
        message="" if details.driver_exit_code is not None else _reason(details, state),
    )


def _exit_code(code: int | None, state: str) -> int | None:
    """The exit code as a shell has it: 128 + N if signal N ended the command."""
    if state in _EXIT_CODES:
        return _EXIT_CODES[state]
    return 128 - code if code is not None and code < 0 else code


def _reason(details: "JobDetails", state: str) -> str:
    return (details.message or "").strip() if state == "failed" else ""


def _last_lines(client: "JobSubmissionClient", details: "JobDetails") -> list[str]:
    """The last lines of the log of a job; none if it has none yet.

    This is the request of `ray.util.state.get_log`, which takes no dashboard's address.
    """
    if details.driver_node_id is None:
        return []
    file = f"job-driver-{details.submission_id}.log"
    query = urlencode({"node_id": details.driver_node_id, "filename": file, "lines": _LINES})
    response = client._do_request("GET", f"/api/v0/logs/file?{query}")
    return str(response.text).splitlines() if response.status_code == 200 else []


def _time(milliseconds: int | None) -> datetime | None:
    return None if not milliseconds else datetime.fromtimestamp(milliseconds / 1000, tz=UTC)


def _iso(time: datetime | None) -> str | None:
    return None if time is None else time.isoformat(timespec="seconds")
