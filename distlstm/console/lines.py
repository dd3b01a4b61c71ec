"""Events and numbers as plain lines of text."""

from typing import Any

from rich.markup import escape

from distlstm.stages.run.events import (
    EpochDone,
    LanguageEpochDone,
    RowsPredicted,
    TrialRow,
    TrialsChanged,
)
from distlstm.text.control import visible


def share_of_study(event: TrialsChanged) -> float:
    """The finished share of a study, from 0 to 1; a running trial counts by its epochs."""
    shares = [
        row.epoch / max(1, row.num_epochs) if row.state == "running" else 1.0
        for row in event.trials
    ]
    return sum(shares) / event.num_trials


def trial_line(row: TrialRow, metric: str) -> str:
    """The line of a trial that has ended."""
    values = ", ".join(f"{k.partition('.')[2]}={short(v)}" for k, v in row.parameters.items())
    outcome = row.error or f"{metric} {short(row.metrics.get(metric))} after epoch {row.epoch}"
    return f"trial {row.trial[:8]} {row.state}: {values}: {outcome}"


def epoch_line(event: EpochDone) -> str:
    """The line of a finished epoch."""
    result = event.result
    return (
        f"epoch {result.epoch:>2} of up to {event.num_epochs}: "
        f"training loss {result.training_loss:.4f}, validation loss "
        f"{result.validation.log_loss:.4f}, accuracy {result.validation.accuracy:.4f}, "
        f"macro-F1 {result.validation.macro_f1:.4f}, "
        f"{result.num_tokens / result.seconds:,.0f} tokens/s{' (best)' if result.is_best else ''}"
    )


def language_epoch_line(event: LanguageEpochDone) -> str:
    """The line of a finished epoch of a language model."""
    result = event.result
    return (
        f"language model, epoch {result.epoch:>2} of {event.num_epochs}: training loss "
        f"{result.training_loss:.4f}, perplexity {result.perplexity:,.1f}, "
        f"{result.num_tokens / result.seconds:,.0f} tokens/s{' (best)' if result.is_best else ''}"
    )


def rows_detail(event: RowsPredicted) -> str:
    """The progress of a prediction run: rows, speed and parts."""
    done = "" if event.share is None else f" ({event.share:.0%})"
    reused = f", {event.parts_reused:,} reused" if event.parts_reused else ""
    return (
        f"{event.rows:,} rows{done}, {event.rows_per_second:,.0f} rows/s, {event.parts:,} of "
        f"{event.parts_total:,} parts{reused}{workers_detail(event)}"
    )


def workers_detail(event: RowsPredicted) -> str:
    """How many workers are missing, if any are."""
    if event.workers >= event.workers_wanted:
        return ""
    return f", {event.workers} of {event.workers_wanted} workers"


def duration(seconds: float) -> str:
    """A duration in seconds, minutes or hours."""
    minutes, hours = round(seconds / 60), round(seconds / 3600, 1)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 90 else f"{hours} h"


def short(value: Any) -> str:
    """A value as short text; None is empty."""
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)


def shown(text: str) -> str:
    """A text for a rich console: neither its markup nor a control character has an effect."""
    return escape(visible(text))
