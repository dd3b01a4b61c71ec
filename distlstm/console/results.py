"""Prints the results of the commands to stdout, and errors to stderr."""

import os
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.table import Table

from distlstm.console.lines import duration, shown
from distlstm.console.tables import baseline_verdict, comparison_table, runs_table, trials_table
from distlstm.errors import OutputError
from distlstm.json_text import to_json
from distlstm.stages.listing.record import RunList
from distlstm.stages.run.events import TrialRow
from distlstm.stages.run.results import (
    BatchPredictResult,
    Estimate,
    EvaluationResult,
    PretrainResult,
    TrainResult,
    TuneResult,
    Verification,
)

_MAX_LABELS_SHOWN = 30
_C1 = re.compile("[\x7f-\x9f]")
"""Control characters that JSON does not escape by itself."""
_WIDTH_OF_FILES = 120


def print_json(result: Mapping[str, Any]) -> None:
    """Print a JSON object as one line on stdout."""
    text = to_json(result)
    with writing():
        sys.stdout.write(_C1.sub(lambda found: f"\\u{ord(found[0]):04x}", text) + "\n")
        sys.stdout.flush()


@contextmanager
def writing() -> Iterator[None]:
    """Turn a failure to write to standard output into an error that says so."""
    try:
        yield
    except BrokenPipeError:
        raise
    except UnicodeEncodeError as error:
        raise OutputError(
            f"Standard output cannot show {error.object[error.start]!r} in its encoding "
            f"({error.encoding}). Set PYTHONIOENCODING=utf-8."
        ) from error
    except OSError as error:
        raise OutputError(f"Standard output cannot be written: {error.strerror}.") from error


def close_stdout() -> None:
    """Discard what standard output still buffers, so that Python's end does not fail of it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


def print_error(message: str) -> None:
    """Print an error message on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[bold red]Error:[/] {shown(message)}"
    )


def print_interrupted(command: Sequence[str] | None) -> None:
    """Print how to resume after Ctrl-C; `command` is None if there is nothing to resume."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    if command is None:
        console.print("\nInterrupted.")
        return
    console.print("\nInterrupted. Finished work is kept. Resume with the same command:")
    console.print(f"  {shown(shlex.join(command))}")


def print_traceback() -> None:
    """Print the current exception with its traceback, for `--debug`."""
    Console(stderr=True).print_exception()


def print_text(text: str) -> None:
    """Print a line on stdout."""
    _stdout().print(shown(text))


def print_command(command: str) -> None:
    """Print a command before it runs."""
    _stdout().print(f"\n[bold]$ {shown(command)}[/]")


def print_shares(title: str, header: Sequence[str], rows: Mapping[str, Sequence[float]]) -> None:
    """Print a table of figures from 0 to 1: a column for each name in `header`, named rows."""
    table = Table(title=title)
    table.add_column("")
    for name in header:
        table.add_column(name, justify="right")
    for name, figures in rows.items():
        table.add_row(name, *(f"{figure:.4f}" for figure in figures))
    _stdout().print(table)


def print_train(result: TrainResult) -> None:
    """Print the metrics of a trained model, and those of the baselines on the same rows."""
    console, metadata = _stdout(), result.metadata
    console.print(comparison_table(metadata))
    verdict = baseline_verdict(metadata)
    if verdict:
        console.print(verdict)
    metrics = metadata["metrics"]
    console.print(
        f"Scores calibrated with temperature {metadata['temperature']:.3f}: expected calibration "
        f"error {metrics['ece_uncalibrated']:.4f} before, {metrics['ece']:.4f} after, on the "
        "validation rows."
    )
    if "cascade" in metadata:
        console.print(
            f"{metadata['cascade']['share']:.1%} of the validation rows are answered by the linear "
            "model alone (early exit)."
        )
    console.print(
        f"{result.epochs} epochs, {result.steps:,} steps, {result.seconds:.0f} s in all, "
        f"{result.tokens_per_second:,.0f} tokens/s in training"
        f"{', resumed' if result.resumed else ''}"
    )
    console.print(f"Model: {shown(result.model)}")


def print_pretrain(result: PretrainResult) -> None:
    """Print the quality of a language model, and how to use it."""
    console = _stdout()
    console.print(
        f"Perplexity {result.perplexity:,.1f} on held-out rows, after {result.epochs} epochs on "
        f"{result.rows:,} rows with {result.tokens:,} tokens."
    )
    console.print(
        f"{result.steps:,} steps, {result.seconds:.0f} s in all, "
        f"{result.tokens_per_second:,.0f} tokens/s in training"
        f"{', resumed' if result.resumed else ''}"
    )
    console.print(f"Language model: {shown(result.language_model)}")
    console.print(
        f"Begin with it: distlstm train DATA --init {shown(shlex.quote(result.language_model))} "
        "--output MODEL"
    )


def print_tune(result: TuneResult, *, metric: str) -> None:
    """Print the trials of a study, and the location of its best model."""
    console = _stdout()
    rows = [TrialRow(**row) for row in result.trials]
    console.print(trials_table(rows, metric, title=f"{len(rows)} trials, best first"))
    console.print(f"{result.seconds:.0f} s in all{', resumed' if result.resumed else ''}")
    console.print(
        f"Study: {shown(result.study)} (best/ is the model of trial {result.best['trial']}, "
        "best.toml its config)"
    )


def print_evaluation(result: EvaluationResult) -> None:
    """Print the metrics of an evaluation, over all rows and by label."""
    console, report = _stdout(), result.to_json()
    table = Table(title=f"{report['num_rows']:,} rows")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in report.items():
        if isinstance(value, float):
            table.add_row(name, f"{value:.4f}")
    console.print(table)
    by_label = Table(title="By label")
    by_label.add_column("label")
    for name in ("precision", "recall", "f1", "support"):
        by_label.add_column(name, justify="right")
    for label in report["labels"][:_MAX_LABELS_SHOWN]:
        row = report["per_label"][label]
        figures = [f"{row[name]:.3f}" for name in ("precision", "recall", "f1")]
        by_label.add_row(shown(label), *figures, f"{row['support']:,}")
    console.print(by_label)
    if len(report["labels"]) > _MAX_LABELS_SHOWN:
        console.print(f"... and {len(report['labels']) - _MAX_LABELS_SHOWN} more labels")


def print_batch_predict(result: BatchPredictResult) -> None:
    """Print the counts and the speed of a prediction run."""
    console = _stdout()
    console.print(
        f"{result.rows_out:,} rows out of {result.rows_in:,} rows in, "
        f"{result.rows_without_prediction:,} without a prediction; "
        f"{result.parts_written} parts written, {result.parts_reused} reused"
    )
    if result.parts_written:
        console.print(
            f"{result.seconds:.0f} s in all; {result.rows_per_second:,.0f} rows/s and "
            f"{result.tokens_per_second:,.0f} tokens/s without the start of the workers"
        )
    if result.partner_share:
        console.print(
            f"{result.partner_share:.1%} of the rows were answered by the linear model alone."
        )
    console.print(f"Output: {shown(result.output)}")


def print_verification(result: Verification) -> None:
    """Print the counts of a prediction output, and each fault."""
    console = _stdout()
    for fault in result.faults:
        console.print(f"[red]fault[/] {shown(fault)}")
    gone = f"; {result.inputs_gone:,} input files are gone" if result.inputs_gone else ""
    console.print(
        f"{result.parts:,} parts with {result.rows_out:,} rows, {len(result.faults)} faults{gone}; "
        f"{result.parts / max(result.seconds, 1e-9):,.0f} parts/s"
    )


def print_runs(runs: RunList) -> None:
    """Print a line for each run, and why those that are damaged cannot be read."""
    console = _stdout()
    if not runs:
        console.print(f"No model, study, evaluation or prediction below {shown(runs.path)}.")
    else:
        console.print(runs_table(runs))
    for run in runs:
        if run.problem:
            console.print(f"{shown(run.name)} is damaged: {shown(run.problem)}")
    for name in runs.unreadable:
        console.print(f"{shown(name)} cannot be read.")


def print_estimate(result: Estimate) -> None:
    """Print the work, time and memory of a prediction run, as estimated."""
    about = "" if result.rows_are_exact else "about "
    rows = {
        "input": f"{result.files:,} files, {result.bytes / 2**20:,.1f} MiB, "
        f"{about}{result.rows:,} rows",
        "parts": f"{result.parts:,}, of which {result.parts_done:,} are done already",
        "sample": f"{result.sampled_rows:,} rows, {result.tokens_per_row:.1f} tokens each, "
        f"{result.rows_without_text:,} without a text",
        "unknown tokens": f"{result.unknown_share:.1%}",
        "rows cut short": f"{result.truncated_share:.1%}",
        "speed": f"{result.rows_per_second_per_worker:,.0f} rows/s per worker, "
        f"{result.workers} workers",
        "time": f"about {duration(result.seconds)} for the missing parts",
        "memory": f"about {result.worker_memory_bytes / 2**30:.1f} GiB per worker",
    }
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    _stdout().print(table)


def _stdout() -> Console:
    width = None if sys.stdout.isatty() else _WIDTH_OF_FILES
    return Console(highlight=False, soft_wrap=True, width=width)
