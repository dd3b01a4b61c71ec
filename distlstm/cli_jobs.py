"""The commands `submit` and `jobs`: other commands as jobs of a Ray cluster."""

import sys

import click

import distlstm
from distlstm import __version__
from distlstm.options import debug_option, json_option

_INTERRUPTED = 130

address_option = click.option(
    "--address",
    metavar="URL",
    help="The cluster's dashboard, such as http://127.0.0.1:8265 [default: RAY_API_SERVER_ADDRESS, "
    "else RAY_ADDRESS, else a Ray of this machine].",
)
_id_argument = click.argument("job", metavar="ID")


@click.command(context_settings={"allow_interspersed_args": False})
@click.argument("command", nargs=-1, required=True, metavar="-- COMMAND...", type=click.UNPROCESSED)
@address_option
@click.option("--name", help="Name of the job in lists [default: that of the command].")
@click.option(
    "--follow/--no-follow",
    default=True,
    show_default=True,
    help="Show the log until the job ends, and exit with its code.",
)
@click.option("--dry-run", is_flag=True, help="Only list what would be sent.")
@json_option
@debug_option
@click.pass_context
def submit(
    context: click.Context,
    command: tuple[str, ...],
    address: str | None,
    name: str | None,
    follow: bool,
    dry_run: bool,
    as_json: bool,
    debug: bool,  # noqa: ARG001 (main)
) -> None:
    """Run a command as a job of a Ray cluster.

    COMMAND is train, pretrain, tune, evaluate, batch-predict or verify, with its options. It is
    checked here first. Its config (--config, --set, --seed) and this version of distlstm are sent;
    data never are. So data and outputs are URIs, or paths that all nodes share. A relative path is
    taken below the current directory.

    Ctrl-C stops watching, and the job goes on; see `distlstm jobs`. The token is that of
    RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token.
    """
    from distlstm.console import jobs as shown
    from distlstm.console import results
    from distlstm.ray_jobs.package import packed
    from distlstm.ray_jobs.plan import planned

    group = context.find_root().command
    plan = planned(command, group.commands if isinstance(group, click.Group) else {})
    if dry_run:
        with packed(plan) as parcel:
            files = parcel.files()
        if as_json:
            sent = [{"name": file.name, "bytes": file.bytes} for file in files]
            results.print_json(
                {"command": plan.shown, "entrypoint": plan.entrypoint, "files": sent}
            )
        else:
            shown.print_plan(plan, files, version=__version__)
        return
    job = distlstm.submit(plan, address=address, name=name)
    if follow:
        shown.print_submitted(job, address=address)
        _watch(job.id, address=address, as_json=as_json)
    elif as_json:
        results.print_json(job.to_json())
    else:
        results.print_text(job.id)


def _watch(id: str, *, address: str | None, as_json: bool = False) -> None:  # noqa: A002
    """Show the log of a job until it ends, then exit with its code."""
    from distlstm.console import jobs as shown
    from distlstm.console import results

    try:
        for text in distlstm.job_log(id, follow=True, address=address):
            shown.print_log(text, on_stderr=as_json)
        job = distlstm.job(id, address=address)
    except KeyboardInterrupt:
        shown.print_detached(id, address=address)
        sys.exit(_INTERRUPTED)
    shown.print_ended(job)
    if as_json:
        results.print_json(job.to_json())
    sys.exit(1 if job.exit_code is None else job.exit_code)


class _ListByDefault(click.Group):
    """A group of which `list` is meant if no command is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put `list` before options, and where there is nothing."""
        if not args or (args[0].startswith("-") and args[0] not in ctx.help_option_names):
            args = ["list", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_ListByDefault)
def jobs() -> None:
    """List the jobs that `submit` started; show one or its log, or stop it."""


@jobs.command("list")
@address_option
@click.option(
    "--last", type=click.IntRange(1), default=20, show_default=True, help="Show this many jobs."
)
@json_option
@debug_option
def list_jobs(address: str | None, last: int, as_json: bool, debug: bool) -> None:  # noqa: ARG001
    """List the last jobs, the newest first. `list` may be left out."""
    from distlstm.console import jobs as shown
    from distlstm.console import results

    found = distlstm.jobs(address=address, last=last)
    if as_json:
        results.print_json({"jobs": [job.to_json() for job in found]})
    else:
        shown.print_jobs(found)


@jobs.command()
@_id_argument
@address_option
@json_option
@debug_option
def status(job: str, address: str | None, as_json: bool, debug: bool) -> None:  # noqa: ARG001
    """Show one job."""
    from distlstm.console import jobs as shown
    from distlstm.console import results

    found = distlstm.job(job, address=address)
    results.print_json(found.to_json()) if as_json else shown.print_job(found)


@jobs.command()
@_id_argument
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends; exit with its code.")
@address_option
@debug_option
def logs(job: str, follow: bool, address: str | None, debug: bool) -> None:  # noqa: ARG001
    """Print what a job has printed."""
    from distlstm.console import jobs as shown

    if follow:
        _watch(job, address=address)
    for text in distlstm.job_log(job, address=address):
        shown.print_log(text)


@jobs.command()
@_id_argument
@address_option
@json_option
@debug_option
def stop(job: str, address: str | None, as_json: bool, debug: bool) -> None:  # noqa: ARG001
    """Stop a job as Ctrl-C stops its command: what is finished is kept."""
    from distlstm.console import jobs as shown
    from distlstm.console import results

    ended = distlstm.stop_job(job, address=address)
    results.print_json(ended.to_json()) if as_json else shown.print_ended(ended)
