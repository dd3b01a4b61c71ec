"""`submit` and what follows it: commands as jobs of a Ray cluster."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from distlstm.errors import UserError

if TYPE_CHECKING:
    from distlstm.ray_jobs.job import Job
    from distlstm.ray_jobs.plan import JobPlan


def plan_job(command: Sequence[str]) -> "JobPlan":
    """Check a command, and list what would be sent to a cluster to run it. Nothing is sent.

    >>> plan = distlstm.plan_job(["train", "s3://lake/rows", "--output", "s3://lake/model"])
    >>> plan.entrypoint
    'exec sh start.sh train s3://lake/rows --output s3://lake/model'

    Args:
        command: the words of the command line, such as
            `["train", "s3://lake/labelled", "--output", "s3://lake/model"]`.

    Raises:
        UserError: the command, an option or the config is wrong.
    """
    from distlstm.cli import cli
    from distlstm.ray_jobs.plan import planned

    try:
        return planned(command, cli.commands)
    except click.ClickException as error:
        raise UserError(error.format_message()) from error


def submit(
    command: "Sequence[str] | JobPlan", *, address: str | None = None, name: str | None = None
) -> "Job":
    """Run a command as a job of a Ray cluster. Returns when the cluster has it.

    >>> words = ["evaluate", "data.parquet", "--model", "model"]
    >>> job = distlstm.submit(words, address=cluster, name="by hand")
    >>> job.name, job.has_ended
    ('by hand', False)

    Args:
        command: the words of the command line; see `plan_job`, which also makes a plan of them.
        address: of the cluster's dashboard, such as `http://127.0.0.1:8265`; None:
            RAY_API_SERVER_ADDRESS or RAY_ADDRESS, else a Ray of this machine.
        name: of the job in lists; None: that of the command.

    Raises:
        UserError: the command is wrong (nothing is sent then), no cluster answers, or it does not
            accept the token of RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or `~/.ray/auth_token`.
        RunError: the cluster did not take the job.
    """
    from distlstm.ray_jobs.connection import connected
    from distlstm.ray_jobs.job import job_at, started
    from distlstm.ray_jobs.plan import JobPlan

    plan = command if isinstance(command, JobPlan) else plan_job(command)
    client = connected(address)
    return job_at(client, started(client, plan, name=name))


def jobs(*, address: str | None = None, last: int = 20) -> "list[Job]":
    """The last jobs of distlstm on a cluster, the newest first.

    >>> [job.name for job in distlstm.jobs(address=cluster, last=1)]
    ['by hand']

    Raises:
        UserError: see `submit`.
    """
    from distlstm.ray_jobs.connection import connected
    from distlstm.ray_jobs.job import jobs_of

    return jobs_of(connected(address), last=last)


def job(id: str, *, address: str | None = None) -> "Job":  # noqa: A002 (as Ray names it)
    """A job by its id, as it is now.

    >>> (last,) = distlstm.jobs(address=cluster, last=1)
    >>> distlstm.job(last.id, address=cluster).command.split()[:2]
    ['distlstm', 'evaluate']

    Raises:
        UserError: there is no such job; see also `submit`.
    """
    from distlstm.ray_jobs.connection import connected
    from distlstm.ray_jobs.job import job_at

    return job_at(connected(address), id)


def job_log(
    id: str,  # noqa: A002
    *,
    follow: bool = False,
    address: str | None = None,
) -> Iterator[str]:
    """What a job has printed; with `follow`, also what it will print, until it has ended.

    >>> (last,) = distlstm.jobs(address=cluster, last=1)
    >>> "accuracy" in "".join(distlstm.job_log(last.id, follow=True, address=cluster))
    True

    Yields:
        Pieces of text, of one or more lines.

    Raises:
        UserError: there is no such job; see also `submit`.
        RunError: the cluster is not reached any more. The job goes on.
    """
    from distlstm.ray_jobs.connection import connected
    from distlstm.ray_jobs.log import followed, log_of

    client = connected(address)
    if follow:
        yield from followed(client, id)
    else:
        yield log_of(client, id)


def stop_job(id: str, *, address: str | None = None) -> "Job":  # noqa: A002
    """Stop a job as Ctrl-C stops its command, and wait for its end. What is finished is kept.

    >>> (last,) = distlstm.jobs(address=cluster, last=1)
    >>> distlstm.stop_job(last.id, address=cluster).state  # it had ended by itself
    'succeeded'

    Raises:
        UserError: there is no such job; see also `submit`.
        RunError: it has not ended in three minutes.
    """
    from distlstm.ray_jobs.connection import connected
    from distlstm.ray_jobs.job import stopped

    return stopped(connected(address), id)
