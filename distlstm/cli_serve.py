"""The command `serve`."""

import click

import distlstm
from distlstm.options import Workers, display_options, model_option
from distlstm.worker_range import WorkerRange


@click.command()
@model_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", type=click.IntRange(1, 65_534), default=8000, show_default=True, help="Port."
)
@click.option(
    "--replicas",
    type=Workers(),
    default="1",
    show_default=True,
    help="Processes with the model, or the least and the most.",
)
@click.option("--gpu/--no-gpu", default=None, help="Use GPUs [default: if there are any].")
@click.option(
    "--cpus-per-worker",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="CPUs and threads of each replica.",
)
@click.option(
    "--address", help="Address of a Ray cluster [default: RAY_ADDRESS, else Ray is started here]."
)
@display_options
def serve(
    model: str,
    host: str,
    port: int,
    replicas: WorkerRange,
    gpu: bool | None,
    cpus_per_worker: int,
    address: str | None,
    quiet: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Answer over HTTP with a model, until Ctrl-C or SIGTERM.

    Beyond loopback, clients need the bearer token in DISTLSTM_SERVE_TOKEN.
    """
    from distlstm.console import results
    from distlstm.console.terminal import TerminalProgress

    with TerminalProgress(quiet=quiet, debug=debug) as progress:
        result = distlstm.serve(
            model,
            host=host,
            port=port,
            replicas=replicas,
            gpu=gpu,
            cpus_per_worker=cpus_per_worker,
            address=address,
            debug=debug,
            on_event=progress,
        )
    results.print_json(result.to_json()) if as_json else results.print_text(str(result))
