"""`distlstm demo`: all main commands, on a corpus made from the running Python.

It prints each command and runs it in this process; all use one embedded Ray.
"""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from distlstm import environment
from distlstm.console.results import print_command, print_text
from distlstm.console.terminal import TerminalProgress
from distlstm.demo.corpus import build_stdlib_corpus
from distlstm.stages.run.events import Progress

_EXPERIMENT = """\
# A short search over a small space, so that the demo ends within minutes.

[training]
max_epochs = 5

[search]
num_trials = 8
grace_epochs = 2

[search.space]
"model.hidden_dim" = { choice = [64, 128] }
"model.num_layers" = { choice = [1, 2] }
"model.dropout" = { uniform = [0.2, 0.6] }
"""


def run_demo(
    directory: Path, *, run: Callable[[Sequence[str]], None], quiet: bool, debug: bool
) -> None:
    """Build the corpus, then tune, train, evaluate and predict on it.

    Args:
        directory: where everything is written.
        run: runs the command line with the given arguments, in this process.
        quiet: show no progress.
        debug: show Ray's own output.
    """
    _build(directory, quiet=quiet)
    with environment.prepared():
        from distlstm.stages.run.session import Resources, shared_ray

        with shared_ray(Resources(show_ray_output=debug)):
            for arguments in _commands(directory):
                print_command(shlex.join(["distlstm", *arguments]))
                run(arguments)
    print_text(
        f"\nEverything is in {directory}: the corpus in data/, the study in study/, the model in "
        "model/ (open model/report.html), the test metrics in evaluation/, the predicted rows in "
        "predictions/."
    )


def _build(directory: Path, *, quiet: bool) -> None:
    """Build the corpus and the experiment, unless they exist from an earlier run."""
    experiment = directory / "experiment.toml"
    if experiment.exists():
        print_text(f"Using the existing corpus in {directory / 'data'}.")
        return
    with TerminalProgress(quiet=quiet) as display:
        display(Progress("reading the documentation of this Python", 0, 1))
        corpus = build_stdlib_corpus(directory / "data")
        display(Progress("reading the documentation of this Python", 1, 1))
    experiment.write_text(_EXPERIMENT, encoding="utf-8")
    print_text(
        "The corpus has paragraphs from this Python's own documentation. Their label is the topic: "
        f"{', '.join(corpus.families)}. {corpus.num_train:,} rows are for training, "
        f"{corpus.num_test:,} for the test, and {corpus.num_unlabelled:,} have no label."
    )


def _commands(directory: Path) -> list[list[str]]:
    data, study, model = directory / "data", directory / "study", directory / "model"
    train, test = str(data / "train.parquet"), str(data / "test.parquet")
    tuned = ["--config", str(study / "best.toml"), "--set", "training.max_epochs=12"]
    experiment = ["--config", str(directory / "experiment.toml")]
    evaluation, predictions = str(directory / "evaluation"), str(directory / "predictions")
    return [
        ["tune", train, "--output", str(study), *experiment],
        ["train", train, "--output", str(model), *tuned, "--workers", "2"],
        ["evaluate", test, "--model", str(model), "--output", evaluation],
        ["batch-predict", str(data / "unlabelled"), "--model", str(model), "--output", predictions],
    ]
