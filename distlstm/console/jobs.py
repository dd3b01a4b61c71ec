"""Prints jobs of a cluster, and what is sent to it."""

import shlex
import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from distlstm.console.lines import duration, shown
from distlstm.console.results import print_text, writing
from distlstm.ray_jobs.job import Job
from distlstm.ray_jobs.package import SentFile
from distlstm.ray_jobs.plan import JobPlan
from distlstm.text.control import visible

_COLUMNS = "id", "name", "command", "state", "progress", "best or speed", "output", "started"
_PACKAGE = "distlstm/"
_STYLES = {"running": "cyan", "succeeded": "green", "failed": "bold red", "stopped": "yellow"}


def print_plan(plan: JobPlan, files: Sequence[SentFile], *, version: str) -> None:
    """Print what would be sent to the cluster; the package is one line."""
    own = [file for file in files if file.name.startswith(_PACKAGE)]
    table = Table(title="Sent to the cluster, unless it has it already", title_justify="left")
    table.add_column("file")
    table.add_column("bytes", justify="right")
    for file in files:
        if file not in own:
            table.add_row(shown(file.name), f"{file.bytes:,}")
    name = f"{_PACKAGE} (version {version}, {len(own)} files)"
    table.add_row(name, f"{sum(file.bytes for file in own):,}")
    table.add_row("in all", f"{sum(file.bytes for file in files):,}")
    console = _console()
    console.print(table)
    console.print(f"Command:    {shown(plan.shown)}", soft_wrap=True)
    console.print(f"Entrypoint: {shown(plan.entrypoint)}", soft_wrap=True)
    console.print("Nothing was sent.")


def print_jobs(jobs: Sequence[Job]) -> None:
    """Print a table of jobs."""
    if not jobs:
        print_text("No jobs of distlstm on this cluster.")
        return
    table = Table(box=None, pad_edge=False)
    whole = ("id", "command", "state", "started")  # never broken into two lines
    for name in _COLUMNS:
        table.add_column(name, no_wrap=name in whole, overflow="fold")
    for job in jobs:
        state = f"[{_STYLES.get(job.state, 'default')}]{job.state}[/]"
        name = "" if job.name == _command_of(job) else job.name
        cells = (name, job.progress, job.figure, job.output or "", _when(job))
        name, *rest = map(shown, cells)
        table.add_row(shown(job.id), name, shown(_command_of(job)), state, *rest)
    _console().print(table)


def print_job(job: Job) -> None:
    """Print all of one job."""
    table = Table(show_header=False)
    rows = {
        "job": job.id,
        "name": job.name,
        "command": job.command,
        "state": job.state + ("" if job.exit_code is None else f", exit code {job.exit_code}"),
        "progress": job.progress,
        "best or speed": job.figure,
        "output": job.output or "",
        "started": "" if job.started is None else f"{job.started.astimezone():%Y-%m-%d %H:%M:%S}",
        "took": _taken(job),
        "message": job.message,
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, shown(value))
    _console().print(table)


def print_submitted(job: Job, *, address: str | None) -> None:
    """Print on stderr which job a command has become."""
    to = "" if address is None else f" to {address}"
    _stderr(f"Submitted{to} as {job.id}. Ctrl-C stops watching, not the job.")


def print_detached(id: str, *, address: str | None) -> None:  # noqa: A002
    """Print on stderr how to go on with a job that is no longer watched."""
    where = [] if address is None else ["--address", address]
    _stderr(f"\n{id} goes on. Follow or stop it with:")
    for words in (["logs", "-f", id], ["stop", id]):
        _stderr(f"  {shlex.join(['distlstm', 'jobs', *words, *where])}")


def print_ended(job: Job) -> None:
    """Print on stderr how a job has ended."""
    code = "" if job.exit_code is None else f", exit code {job.exit_code}"
    _stderr(f"{job.id} {job.state}{code}.{_advice(job)}")
    if job.message:
        _stderr(job.message)


def print_log(text: str, *, on_stderr: bool = False) -> None:
    """Print a piece of a log, without control characters."""
    stream = sys.stderr if on_stderr else sys.stdout
    with writing():
        stream.write(visible(text))
        stream.flush()


def _advice(job: Job) -> str:
    if job.state == "stopped":
        return " What is finished is kept; submit the same command again to carry on."
    return ""


def _command_of(job: Job) -> str:
    """The name of its command, such as `train`."""
    return job.command.removeprefix("distlstm ").partition(" ")[0]


def _when(job: Job) -> str:
    return "" if job.started is None else f"{job.started.astimezone():%m-%d %H:%M}"


def _taken(job: Job) -> str:
    if job.started is None or job.ended is None:
        return ""
    return duration((job.ended - job.started).total_seconds())


def _stderr(text: str) -> None:
    Console(stderr=True, highlight=False, soft_wrap=True).print(shown(text))


def _console() -> Console:
    width = None if sys.stdout.isatty() else 160
    return Console(highlight=False, width=width)
