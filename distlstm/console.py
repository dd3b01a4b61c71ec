"""What the user sees. The only module that prints.

Progress goes to stderr, through a descriptor of its own (Ray's is silenced meanwhile); results go
to stdout. In a terminal progress is drawn live; elsewhere it is plain lines, seconds apart.
"""

import json
import os
import shlex
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

import rich.progress
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from distlstm.stages.run.events import (
    EpochDone,
    Event,
    FirstStep,
    Note,
    Progress,
    RowsPredicted,
    TrialRow,
    TrialsChanged,
)
from distlstm.stages.run.files import METRICS

if TYPE_CHECKING:  # the stages import Ray and torch, each command only its own
    from distlstm.stages.batch_predict import BatchPredictResult
    from distlstm.stages.estimate import Estimate
    from distlstm.stages.train import TrainResult
    from distlstm.stages.tune import TuneResult
    from distlstm.stages.verify import Verification

_SECONDS_BETWEEN_LINES = 5.0
_MAX_TRIALS_SHOWN = 12
_MAX_LABELS_SHOWN = 30
_WIDTH_OF_FILES = 120


class Display:
    """Draws a stage's events for as long as it is entered; call it with each of them."""

    def __init__(self, *, quiet: bool = False, debug: bool = False) -> None:
        self.quiet = quiet
        self.debug = debug
        self.console = Console(file=_own_stderr(), highlight=False, soft_wrap=True)
        self.bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[detail]}"),
            rich.progress.TimeElapsedColumn(),
            rich.progress.TimeRemainingColumn(),
            console=self.console,
        )
        self.task: rich.progress.TaskID | None = None
        self.title = ""
        self.trials: TrialsChanged | None = None
        self.last_line = 0.0
        self.live = Live(
            get_renderable=self._render, console=self.console, transient=True, refresh_per_second=5
        )

    def __enter__(self) -> Self:
        """Start drawing."""
        if self._draws:
            self.live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was, with the lines that were printed."""
        self.live.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        if self.quiet:
            return
        match event:
            case Progress(title, done, total, detail):
                shown = f"{done:,} of {total:,} {detail}".rstrip()
                self._progress(title, share=done / max(1, total), detail=shown)
            case RowsPredicted():
                seconds = event.seconds_left
                left = "" if seconds is None else f", {_duration(seconds)} left"
                detail = _rows_detail(event)
                self._progress("predicting", share=event.share, detail=detail, left=left)
            case Note(text):
                self.console.print(escape(text))
            case EpochDone():
                self.console.print(_epoch_line(event))
            case TrialsChanged():
                self._trials(event)
            case FirstStep(seconds):
                if self.debug:
                    self.console.print(start_up_table(seconds))

    @property
    def _draws(self) -> bool:
        return self.console.is_terminal and not self.quiet

    def _render(self) -> Group:
        table = (
            [] if self.trials is None else [trials_table(self.trials.trials, self.trials.metric)]
        )
        return Group(*table, self.bar)

    def _progress(self, title: str, *, share: float | None, detail: str, left: str = "") -> None:
        """Move the bar, which shows the time left by itself, or write a line.

        `share` is from 0 to 1; None while it cannot be told.
        """
        if title != self.title:
            if self.task is not None:
                self.bar.remove_task(self.task)
            self.task = self.bar.add_task(escape(title), total=None, detail="")
            self.title, self.last_line = title, 0.0
        if self.task is not None:
            total = None if share is None else 1.0
            self.bar.update(self.task, completed=share or 0, total=total, detail=escape(detail))
        now = time.monotonic()
        waited = now - self.last_line > _SECONDS_BETWEEN_LINES
        if not self._draws and share and waited:
            self.last_line = now
            self.console.print(escape(f"{title}: {detail}{left}"))

    def _trials(self, event: TrialsChanged) -> None:
        before = {} if self.trials is None else {row.trial: row for row in self.trials.trials}
        self.trials = event
        ended = [row for row in event.trials if row.state != "running"]
        best = event.trials[0].metrics.get(event.metric) if event.trials else None
        best_so_far = "" if best is None else f", best {event.metric} {_short(best)}"
        detail = f"{len(ended)} of {event.num_trials} trials{best_so_far}"
        self._progress("tuning", share=_share_of_study(event), detail=detail)
        for row in ended:
            if row.trial not in before or before[row.trial].state == "running":
                self.console.print(_trial_line(row, event.metric))


def print_json(result: Mapping[str, Any]) -> None:
    """One JSON object on stdout."""
    sys.stdout.write(json.dumps(result, ensure_ascii=False) + "\n")
    sys.stdout.flush()


def print_error(message: str) -> None:
    """One message on stderr."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(
        f"[bold red]Error:[/] {escape(message)}"
    )


def print_interrupted(command: Sequence[str]) -> None:
    """Say how to carry on after Ctrl-C."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    console.print("\nInterrupted; what was finished is kept. The same command carries on:")
    console.print(f"  {escape(shlex.join(command))}")


def print_traceback() -> None:
    """The current exception in full, for `--debug`."""
    Console(stderr=True).print_exception()


def print_text(text: str) -> None:
    """A line on stdout."""
    _stdout().print(escape(text))


def print_command(command: str) -> None:
    """A command that is being run, to be copied."""
    _stdout().print(f"\n[bold]$ {escape(command)}[/]")


def print_train(result: "TrainResult", metadata: Mapping[str, Any]) -> None:
    """What training gave, beside what simpler models reach on the same rows."""
    console = _stdout()
    console.print(comparison_table(metadata))
    verdict = baseline_verdict(metadata)
    if verdict:
        console.print(verdict)
    metrics = metadata["metrics"]
    console.print(
        f"Scores calibrated at temperature {metadata['temperature']:.3f}: expected calibration "
        f"error "
        f"{metrics['ece_uncalibrated']:.4f} before, {metrics['ece']:.4f} after, on validation."
    )
    if "cascade" in metadata:
        console.print(
            f"{metadata['cascade']['share']:.1%} of the validation rows are answered by the linear "
            "model alone, which is sure of them."
        )
    console.print(
        f"{result.epochs} epochs, {result.steps:,} steps, {result.seconds:.0f} s in all, "
        f"{result.tokens_per_second:,.0f} tokens/s in training"
        f"{', resumed' if result.resumed else ''}"
    )
    console.print(f"Model: {escape(result.model)}")


def print_tune(result: "TuneResult", *, metric: str) -> None:
    """The trials of a study and where its best model lies."""
    console = _stdout()
    rows = [TrialRow(**row) for row in result.trials]
    console.print(trials_table(rows, metric, title=f"{len(rows)} trials, best first"))
    console.print(f"{result.seconds:.0f} s in all{', resumed' if result.resumed else ''}")
    console.print(
        f"Study: {escape(result.study)} (best/ is the model of trial {result.best['trial']}, "
        "best.toml its config)"
    )


def print_evaluation(report: Mapping[str, Any]) -> None:
    """The figures of an evaluation, in all and by label."""
    console = _stdout()
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
        by_label.add_row(escape(label), *figures, f"{row['support']:,}")
    console.print(by_label)
    if len(report["labels"]) > _MAX_LABELS_SHOWN:
        console.print(f"... and {len(report['labels']) - _MAX_LABELS_SHOWN} more labels")


def print_batch_predict(result: "BatchPredictResult") -> None:
    """What a prediction run wrote."""
    console = _stdout()
    console.print(
        f"{result.rows_out:,} rows out of {result.rows_in:,} rows in, "
        f"{result.rows_without_prediction:,} without a prediction; "
        f"{result.parts_written} parts written, {result.parts_reused} reused"
    )
    if result.parts_written:
        console.print(
            f"{result.seconds:.0f} s in all; {result.rows_per_second:,.0f} rows/s and "
            f"{result.tokens_per_second:,.0f} tokens/s once the workers ran"
        )
    if result.partner_share:
        console.print(
            f"{result.partner_share:.1%} of the rows were answered by the linear model alone."
        )
    console.print(f"Output: {escape(result.output)}")


def print_verification(result: "Verification") -> None:
    """What a prediction output holds, and each fault."""
    console = _stdout()
    for fault in result.faults:
        console.print(f"[red]fault[/] {escape(fault)}")
    gone = f"; {result.inputs_gone:,} input files are gone" if result.inputs_gone else ""
    console.print(
        f"{result.parts:,} parts with {result.rows_out:,} rows, {len(result.faults)} faults{gone}; "
        f"{result.parts / max(result.seconds, 1e-9):,.0f} parts/s"
    )


def print_estimate(result: "Estimate") -> None:
    """What a prediction run would do and take."""
    about = "" if result.rows_are_exact else "about "
    rows = {
        "input": f"{result.files:,} files, {result.bytes / 2**20:,.1f} MiB, "
        f"{about}{result.rows:,} rows",
        "parts": f"{result.parts:,}, of which {result.parts_done:,} are done",
        "sample": f"{result.sampled_rows:,} rows, {result.tokens_per_row:.1f} tokens each, "
        f"{result.rows_without_text:,} without a text",
        "unknown tokens": f"{result.unknown_share:.1%}",
        "rows cut short": f"{result.truncated_share:.1%}",
        "speed": f"{result.rows_per_second_per_worker:,.0f} rows/s a worker, "
        f"{result.workers} workers",
        "time": f"about {_duration(result.seconds)} for what is not done",
        "memory": f"about {result.worker_memory_bytes / 2**30:.1f} GiB a worker",
    }
    table = Table(show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    _stdout().print(table)


def start_up_table(seconds: Mapping[str, float]) -> Table:
    """The parts of the way to a training's first step."""
    table = Table(title="To the first step", title_justify="left", box=None)
    table.add_column("part")
    table.add_column("seconds", justify="right")
    for part, taken in {**seconds, "in all": sum(seconds.values())}.items():
        table.add_row(part, f"{taken:.1f}")
    return table


def comparison_table(metadata: Mapping[str, Any]) -> Table:
    """Model, linear baseline and majority class on the validation rows."""
    table = Table(title=f"Validation, {metadata['metrics']['num_rows']:,} rows")
    table.add_column("")
    table.add_column("accuracy", justify="right")
    table.add_column("macro-F1", justify="right")
    cell = metadata["model"]["cell"].upper()
    rows = {
        "this model": metadata["metrics"],
        f"its {cell} alone": metadata["baseline"]["recurrent"],
        "linear model of n-grams": metadata["baseline"]["linear"],
        "always the most frequent label": metadata["baseline"]["majority"],
    }
    for name, metrics in rows.items():
        table.add_row(name, f"{metrics['accuracy']:.4f}", f"{metrics['macro_f1']:.4f}")
    return table


def baseline_verdict(metadata: Mapping[str, Any]) -> str | None:
    """A plain word if the linear model is as good."""
    own, linear = metadata["metrics"]["accuracy"], metadata["baseline"]["linear"]["accuracy"]
    if own > linear:
        return None
    return (
        f"The linear model is as good or better here ({linear:.4f} against {own:.4f}): word order "
        "adds little on this data, or there are too few rows to learn it."
    )


def trials_table(rows: Iterable[TrialRow], metric: str, *, title: str | None = None) -> Table:
    """Trials, best first."""
    rows = list(rows)
    table = Table(title=title)
    parameters = list(dict.fromkeys(name for row in rows for name in row.parameters))
    table.add_column("trial")
    for name in parameters:
        table.add_column(name.partition(".")[2], justify="right")
    for name in (*METRICS, "rows/s", "epoch", "seconds"):
        table.add_column(name, justify="right", style="bold" if name == metric else "")
    table.add_column("state")
    for row in _rows_shown(rows):
        values = [_short(row.parameters.get(name)) for name in parameters]
        figures = [_short(row.metrics.get(name)) for name in METRICS]
        speed = "" if row.rows_per_second is None else f"{row.rows_per_second:,.0f}"
        epoch = f"{row.epoch} of {row.num_epochs}" if row.num_epochs else ""
        state = row.state if row.error is None else f"{row.state}: {row.error[:60]}"
        table.add_row(
            *(row.trial, *values, *figures, speed, epoch, f"{row.seconds:.0f}"),
            escape(state),
        )
    return table


def _rows_shown(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """The best ones, and whatever runs."""
    best = {row.trial for row in rows[:_MAX_TRIALS_SHOWN]}
    return [row for row in rows if row.trial in best or row.state == "running"]


def _share_of_study(event: TrialsChanged) -> float:
    """From 0 to 1; a running trial counts by its epochs, though it may be stopped earlier."""
    shares = [
        row.epoch / max(1, row.num_epochs) if row.state == "running" else 1.0
        for row in event.trials
    ]
    return sum(shares) / event.num_trials


def _trial_line(row: TrialRow, metric: str) -> str:
    values = ", ".join(f"{k.partition('.')[2]}={_short(v)}" for k, v in row.parameters.items())
    outcome = row.error or f"{metric} {_short(row.metrics.get(metric))} after epoch {row.epoch}"
    return escape(f"trial {row.trial[:8]} {row.state}: {values}: {outcome}")


def _epoch_line(event: EpochDone) -> str:
    result = event.result
    return (
        f"epoch {result.epoch:>2} of up to {event.num_epochs}: "
        f"training loss {result.training_loss:.4f}, validation loss "
        f"{result.validation.log_loss:.4f}, accuracy {result.validation.accuracy:.4f}, "
        f"macro-F1 {result.validation.macro_f1:.4f}, "
        f"{result.num_tokens / result.seconds:,.0f} tokens/s{' (best)' if result.is_best else ''}"
    )


def _rows_detail(event: RowsPredicted) -> str:
    done = "" if event.share is None else f" ({event.share:.0%})"
    reused = f", {event.parts_reused:,} reused" if event.parts_reused else ""
    return (
        f"{event.rows:,} rows{done}, {event.rows_per_second:,.0f} rows/s, {event.parts:,} of "
        f"{event.parts_total:,} parts{reused}"
    )


def _duration(seconds: float) -> str:
    """About so long."""
    minutes, hours = round(seconds / 60), round(seconds / 3600, 1)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{hours} h"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def _stdout() -> Console:
    width = None if sys.stdout.isatty() else _WIDTH_OF_FILES
    return Console(highlight=False, soft_wrap=True, width=width)


def _own_stderr() -> IO[str]:
    """The terminal (or file) behind stderr, under a descriptor that nothing else redirects."""
    try:
        return os.fdopen(os.dup(sys.stderr.fileno()), "w", encoding="utf-8", buffering=1)
    except (OSError, ValueError):
        return sys.stderr
