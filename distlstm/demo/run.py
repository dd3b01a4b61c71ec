"""`distlstm demo`: all main commands, on a corpus made from the running Python.

It prints each command and runs it in this process; all use one embedded Ray.
"""

import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from distlstm import environment
from distlstm.console.results import print_command, print_shares, print_text
from distlstm.console.terminal import TerminalProgress
from distlstm.demo.corpus import build_stdlib_corpus
from distlstm.json_text import read_json
from distlstm.stages.run.events import Progress
from distlstm.stages.run.files import METRICS_FILE
from distlstm.storage import LocalStorage

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
_MODELS = {"train": "plain-model", "pretrain, then train --init": "model"}
"""The directories of both models, by how they were made."""


def run_demo(
    directory: Path, *, run: Callable[[Sequence[str]], None], quiet: bool, debug: bool
) -> None:
    """Build the corpus, then tune, pretrain, train, evaluate and predict on it.

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
        print_shares(
            "What pretraining brought (accuracy)",
            ["LSTM alone, validation", "linear model, validation", "whole model, test"],
            {name: _accuracies(directory / model) for name, model in _MODELS.items()},
        )
    print_text(
        f"\nEverything is in {directory}: the corpus in data/, the study in study/, the language "
        "model in language-model/, the models in plain-model/ and model/ (open model/report.html), "
        "their test metrics beside them, the predicted rows in predictions/."
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


def _accuracies(model: Path) -> list[float]:
    """Of the LSTM alone and the linear model on validation rows, and of both on the test rows."""
    from distlstm.stages.run.models import metadata_of

    baseline = metadata_of(LocalStorage(model))["baseline"]
    tested = read_json(Path(f"{model}-evaluation") / METRICS_FILE)
    return [part["accuracy"] for part in (baseline["recurrent"], baseline["linear"], tested)]


def _commands(directory: Path) -> list[list[str]]:
    data, study, texts = directory / "data", directory / "study", directory / "language-model"
    train, test, unlabelled = (
        str(data / name) for name in ("train.parquet", "test.parquet", "unlabelled")
    )
    plain, model = (str(directory / name) for name in _MODELS.values())
    tuned = ["--config", str(study / "best.toml")]
    longer = [*tuned, "--set", "training.max_epochs=12", "--workers", "2"]
    return [
        ["tune", train, "--output", str(study), "--config", str(directory / "experiment.toml")],
        ["train", train, "--output", plain, *longer],
        ["pretrain", unlabelled, "--output", str(texts), *tuned, "--workers", "2"],
        ["train", train, "--init", str(texts), "--output", model, *longer],
        ["evaluate", test, "--model", plain, "--output", f"{plain}-evaluation"],
        ["evaluate", test, "--model", model, "--output", f"{model}-evaluation"],
        ["batch-predict", unlabelled, "--model", model, "--output", str(directory / "predictions")],
    ]
