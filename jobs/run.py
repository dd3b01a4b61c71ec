"""A Ray job that runs the distlstm commands tune, train, evaluate and batch-predict in turn.

Every command continues where it stopped, so a failed job can be submitted again as it is:

    ray job submit --address http://127.0.0.1:8265 --working-dir . -- \
        python jobs/run.py --train s3://lake/labelled --test s3://lake/held-out \
        --input s3://lake/unlabelled --output /shared/news --workers 8

It writes `study/`, `model/`, `evaluation/` and `predictions/` below `--output`.
"""

import contextlib
import logging
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from distlstm import environment
from distlstm.options import Duration

_SECONDS_BETWEEN_CHECKS = 2.0


@dataclass(frozen=True, kw_only=True)
class Job:
    """The settings of a job. Data are given as DATA of distlstm: paths, globs or URIs."""

    train: tuple[str, ...]
    output: Path
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    """Labelled data to evaluate on; if empty, there is no evaluation."""
    inputs: tuple[str, ...] = ()
    """Rows to label; if empty, there is no prediction."""
    config: Path | None = None
    text_column: str | None = None
    label_column: str | None = None
    workers: int | None = None
    """None: each command decides by the resources of the cluster."""
    gpu: bool | None = None
    """None: use GPUs if the cluster has any."""


def commands(job: Job) -> list[list[str]]:
    """The arguments of each `distlstm` command, in order."""
    study, model = job.output / "study", job.output / "model"
    labelled = [
        *_repeated("--validation", job.validation),
        *_option("--text-column", job.text_column),
        *_option("--label-column", job.label_column),
    ]
    use = _option("--workers", job.workers)
    if job.gpu is not None:
        use = [*use, "--gpu" if job.gpu else "--no-gpu"]
    best = ["--config", str(study / "best.toml")]
    applied = ["--model", str(model), "--output"]
    steps = [
        ["tune", *job.train, "--output", str(study), *_option("--config", job.config), *labelled],
        ["train", *job.train, "--output", str(model), *best, *labelled],
    ]
    if job.test:
        steps.append(["evaluate", *job.test, *applied, str(job.output / "evaluation")])
    if job.inputs:
        steps.append(["batch-predict", *job.inputs, *applied, str(job.output / "predictions")])
    return [[*step, *use] for step in steps]


def _option(name: str, value: object) -> list[str]:
    return [] if value is None else [name, str(value)]


def _repeated(name: str, values: Sequence[str]) -> list[str]:
    return [word for value in values for word in (name, value)]


def run(steps: Sequence[Sequence[str]]) -> int:
    """Run `distlstm` once for each list of arguments, up to the first exit code that is not 0.

    Returns that exit code, or 0.
    """
    for arguments in steps:
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


@contextlib.contextmanager
def scaled_up(bundle: Mapping[str, float], count: int, *, within: float) -> Iterator[None]:
    """Request `count` bundles of resources from Ray's autoscaler, for the time of a block.

    distlstm plans with the nodes that are up, so this waits for the resources first. It needs
    RAY_ADDRESS. The request ends with the block; the cluster's idle timeout then ends idle nodes.

    Raises:
        click.ClickException: they are not available `within` this many seconds.
    """
    environment.prepare()
    import ray
    from ray.autoscaler.sdk import request_resources

    ray.init(os.environ["RAY_ADDRESS"], log_to_driver=False, logging_level=logging.ERROR)
    try:
        request_resources(bundles=[dict(bundle)] * count)
        deadline = time.monotonic() + within
        while short := lacking(bundle, count, ray.cluster_resources()):
            if time.monotonic() > deadline:
                raise click.ClickException(
                    f"The cluster still lacks {short} after {within:g} s. Use fewer --workers, "
                    "allow the cluster more nodes, or wait longer with --scale-up-within."
                )
            time.sleep(_SECONDS_BETWEEN_CHECKS)
        yield
    finally:
        request_resources(bundles=[])
        ray.shutdown()


def lacking(bundle: Mapping[str, float], count: int, present: Mapping[str, float]) -> str:
    """The resources missing for `count` bundles, such as `6 CPU, 1 GPU`; empty if none are."""
    missing = {name: count * each - present.get(name, 0) for name, each in bundle.items()}
    return ", ".join(f"{amount:g} {name}" for name, amount in missing.items() if amount > 0)


def _shared_directory(_: click.Context, __: click.Parameter, value: str) -> Path:
    if not Path(value).is_absolute():
        raise click.BadParameter(
            f"{value} is not an absolute path. Use a directory on storage that all nodes share, "
            "such as NFS. The job's own directory is removed after the job, and outputs cannot be "
            "URIs."
        )
    return Path(value)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--train", multiple=True, required=True, help="Labelled data; may be repeated.")
@click.option("--validation", multiple=True, help="Held-out data; may be repeated.")
@click.option("--test", multiple=True, help="Labelled data to evaluate on; may be repeated.")
@click.option("--input", "inputs", multiple=True, help="Rows to label; may be repeated.")
@click.option(
    "--output",
    required=True,
    callback=_shared_directory,
    help="Directory on storage that all nodes share.",
)
@click.option("--config", type=click.Path(path_type=Path), help="TOML file for the search.")
@click.option("--text-column", help="Column with the text [default: text].")
@click.option("--label-column", help="Column with the label [default: label].")
@click.option("--workers", type=click.IntRange(1), help="Workers of each command.")
@click.option("--gpu/--no-gpu", default=None, help="Use GPUs [default: if there are any].")
@click.option(
    "--scale-up-within",
    type=Duration(),
    help="First wait up to this long (20m) for the autoscaler to start nodes for --workers.",
)
def main(scale_up_within: float | None, **options: Any) -> None:
    """Tune, train, evaluate and predict; stop at the first command that fails, with its code."""
    job = Job(**options)
    if scale_up_within is None:
        sys.exit(run(commands(job)))
    if job.workers is None or "RAY_ADDRESS" not in os.environ:
        raise click.UsageError("--scale-up-within needs --workers and a cluster (RAY_ADDRESS).")
    bundle = {"CPU": 1.0, "GPU": 1.0} if job.gpu else {"CPU": 1.0}
    with scaled_up(bundle, job.workers, within=scale_up_within):
        code = run(commands(job))
    sys.exit(code)


if __name__ == "__main__":
    main()
