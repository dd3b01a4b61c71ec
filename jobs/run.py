"""A Ray job that tunes, trains, evaluates and labels, one distlstm command after the other.

Every command carries on where it stopped, so a job that died is simply submitted again:

    ray job submit --address http://127.0.0.1:8265 --working-dir . -- \
        python jobs/run.py --train s3://lake/labelled --test s3://lake/held-out \
        --input s3://lake/unlabelled --output /shared/news --workers 8
"""

import subprocess
import sys
from pathlib import Path

import click


def commands(
    *, train: str, test: str | None, unlabelled: str | None, output: Path, workers: int
) -> list[list[str]]:
    """The distlstm commands of the job, in order."""
    study, model = output / "study", output / "model"
    use = ["--workers", str(workers)]
    steps = [
        ["tune", train, "--output", str(study), *use],
        ["train", train, "--output", str(model), "--config", str(study / "best.toml"), *use],
    ]
    if test is not None:
        evaluation = str(output / "evaluation")
        steps.append(["evaluate", test, "--model", str(model), "--output", evaluation, *use])
    if unlabelled is not None:
        predictions = str(output / "predictions")
        steps.append(
            ["batch-predict", unlabelled, "--model", str(model), "--output", predictions, *use]
        )
    return steps


@click.command()
@click.option("--train", required=True, help="Labelled data.")
@click.option("--test", help="Labelled data to evaluate on.")
@click.option("--input", "unlabelled", help="Rows to label.")
@click.option(
    "--output",
    required=True,
    type=click.Path(path_type=Path),
    help="A directory that every node sees.",
)
@click.option("--workers", default=2, show_default=True, type=click.IntRange(1))
def main(train: str, test: str | None, unlabelled: str | None, output: Path, workers: int) -> None:
    """Run the commands; the first that fails ends the job with its exit code."""
    for command in commands(
        train=train, test=test, unlabelled=unlabelled, output=output, workers=workers
    ):
        done = subprocess.run([sys.executable, "-m", "distlstm", *command], check=False)  # noqa: S603
        if done.returncode != 0:
            sys.exit(done.returncode)


if __name__ == "__main__":
    main()
