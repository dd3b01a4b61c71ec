"""A Ray job that runs the distlstm commands tune, train, evaluate and batch-predict in turn.

Every command continues where it stopped, so a failed job can be submitted again as it is:

    ray job submit --address http://127.0.0.1:8265 --working-dir . -- \
        python jobs/run.py --train s3://lake/labelled --test s3://lake/held-out \
        --input s3://lake/unlabelled --output s3://lake/news --workers 2:8

It writes `study/`, `model/`, `evaluation/` and `predictions/` below `--output`.
"""

import contextlib
import functools
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from distlstm import environment
from distlstm.errors import UserError
from distlstm.options import Duration
from distlstm.storage import is_object_uri
from distlstm.worker_range import WorkerRange

_SECONDS_BETWEEN_CHECKS = 2.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """The settings of a job. Data are given as DATA of distlstm: paths, globs or URIs."""

    train: tuple[str, ...]
    output: str
    """URI in an object store, or a directory that all nodes share."""
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    """Labelled data to evaluate on; if empty, there is no evaluation."""
    inputs: tuple[str, ...] = ()
    """Rows to label; if empty, there is no prediction."""
    config: str | None = None
    text_column: str | None = None
    label_column: str | None = None
    workers: str | None = None
    """`N` or `MIN:MAX`. None: each command decides by the resources of the cluster."""
    gpu: bool | None = None
    """None: use GPUs if the cluster has any."""


def commands(job: Job) -> list[list[str]]:
    """The arguments of each `distlstm` command, in order."""
    study, model, evaluation, predictions = (
        f"{job.output.rstrip('/')}/{name}"
        for name in ("study", "model", "evaluation", "predictions")
    )
    labelled = [
        *_repeated("--validation", job.validation),
        *_option("--text-column", job.text_column),
        *_option("--label-column", job.label_column),
    ]
    use = _option("--workers", job.workers)
    if job.gpu is not None:
        use = [*use, "--gpu" if job.gpu else "--no-gpu"]
    best = ["--config", f"{study}/best.toml"]
    applied = ["--model", model, "--output"]
    steps = [
        ["tune", *job.train, "--output", study, *_option("--config", job.config), *labelled],
        ["train", *job.train, "--output", model, *best, *labelled],
    ]
    if job.test:
        steps.append(["evaluate", *job.test, *applied, evaluation])
    if job.inputs:
        steps.append(["batch-predict", *job.inputs, *applied, predictions])
    return [[*step, *use] for step in steps]


def _option(name: str, value: object) -> list[str]:
    return [] if value is None else [name, str(value)]


def _repeated(name: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (name, value)]


def run(steps: Sequence[Sequence[str]], *, before: Callable[[], None] = lambda: None) -> int:
    """Run `distlstm` once for each list of arguments, up to the first exit code that is not 0.

    `before` is called before each command. Returns that exit code, or 0.
    """
    for arguments in steps:
        before()
        click.echo(f"$ {shlex.join(['distlstm', *arguments])}", err=True)
        code = _execute([sys.executable, "-m", "distlstm", *arguments])
        if code != 0:
            return code
    return 0


def _execute(command: Sequence[str]) -> int:
    """Run a command; return its exit code, or 128 + N if signal N ended it, as in a shell.

    Ctrl-C also reaches the command, which needs time to save its work, so this waits for its end.
    """
    with subprocess.Popen(command) as process:  # noqa: S603 (a list, and no shell)
        while True:
            with contextlib.suppress(KeyboardInterrupt):
                code = process.wait()
                return 128 - code if code < 0 else code


def scale_up(bundle: Mapping[str, float], count: int, *, within: float) -> None:
    """Request `count` bundles of resources from Ray's autoscaler, and wait until they are there.

    It needs RAY_ADDRESS. A cluster has one such request, and keeps its nodes until the next one;
    after a request for none, the idle timeout ends idle nodes. Ray Train makes requests of its own
    and ends with one for none, so this is called before every command.

    Raises:
        click.ClickException: they are not available `within` this many seconds.
    """
    environment.prepare()
    import ray
    from ray.autoscaler.sdk import request_resources

    ray.init(os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level=logging.ERROR)
    try:
        request_resources(bundles=[dict(bundle)] * count)
        _wait_for({name: each * count for name, each in bundle.items()}, within=within)
    finally:
        ray.shutdown()


def _wait_for(wanted: Mapping[str, float], *, within: float) -> None:
    """Wait until the cluster has these resources; show each change of what it has."""
    import ray

    deadline = time.monotonic() + within
    shown = ""
    while waiting := waiting_for(wanted, ray.cluster_resources()):
        if waiting != shown:
            click.echo(f"{waiting}.", err=True)
            shown = waiting
        if time.monotonic() > deadline:
            raise click.ClickException(
                f"{waiting}, after {within:g} s. Use fewer --workers, allow the cluster more "
                "nodes, or wait longer with --scale-up-within."
            )
        time.sleep(_SECONDS_BETWEEN_CHECKS)


def waiting_for(wanted: Mapping[str, float], present: Mapping[str, float]) -> str:
    """What a cluster lacks, `Waiting for 6 CPU; the cluster has 2`; empty if it lacks nothing."""
    lacking = {name: each for name, each in wanted.items() if present.get(name, 0) < each}
    if not lacking:
        return ""
    asked = ", ".join(f"{each:g} {name}" for name, each in lacking.items())
    has = ", ".join(f"{present.get(name, 0):g}" for name in lacking)
    return f"Waiting for {asked}; the cluster has {has}"


def _output(_: click.Context, __: click.Parameter, value: str) -> str:
    """Accept a place that all nodes reach and that stays after the job."""
    if is_object_uri(value) or value.startswith("file:///") or Path(value).is_absolute():
        return value
    raise click.BadParameter(
        f"{value} is neither a URI in an object store (s3://, gs:// or az://) nor an absolute path "
        "on storage that all nodes share, such as NFS. Use one of them: the job's own directory "
        "is removed after the job."
    )


def _workers(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Accept `N` or `MIN:MAX`."""
    if value is None:
        return None
    try:
        least = WorkerRange.parse(value).least
    except UserError:
        least = 0
    if least < 1:
        raise click.BadParameter(f"{value} is not a number, such as 4, or a range, such as 2:8.")
    return value


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--train", multiple=True, required=True, help="Labelled data; may be repeated.")
@click.option("--validation", multiple=True, help="Held-out data; may be repeated.")
@click.option("--test", multiple=True, help="Labelled data to evaluate on; may be repeated.")
@click.option("--input", "inputs", multiple=True, help="Rows to label; may be repeated.")
@click.option(
    "--output",
    required=True,
    callback=_output,
    help="URI (s3://, gs://, az://), or a directory that all nodes share.",
)
@click.option("--config", help="TOML file for the search.")
@click.option("--text-column", help="Column with the text [default: text].")
@click.option("--label-column", help="Column with the label [default: label].")
@click.option(
    "--workers", metavar="N or MIN:MAX", callback=_workers, help="Workers of each command."
)
@click.option("--gpu/--no-gpu", default=None, help="Use GPUs [default: if there are any].")
@click.option(
    "--scale-up-within",
    type=Duration(),
    help="First wait up to this long (20m) for nodes for --workers (for MIN of a range).",
)
def main(scale_up_within: float | None, **options: Any) -> None:
    """Tune, train, evaluate and predict; stop at the first command that fails, with its code."""
    job = Job(**options)
    if scale_up_within is None:
        sys.exit(run(commands(job)))
    if job.workers is None or "RAY_ADDRESS" not in os.environ:
        raise click.UsageError("--scale-up-within needs --workers and a cluster (RAY_ADDRESS).")
    bundle = {"CPU": 1.0, "GPU": 1.0} if job.gpu else {"CPU": 1.0}
    fewest = WorkerRange.parse(job.workers).least
    request = functools.partial(scale_up, bundle, within=scale_up_within)
    try:
        code = run(commands(job), before=functools.partial(request, fewest))
    finally:
        request(0)
    sys.exit(code)


if __name__ == "__main__":
    main()
