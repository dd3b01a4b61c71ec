"""Tables of the progress display and of the printed results."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from rich.table import Table

from distlstm.console.lines import short, shown
from distlstm.stages.listing.record import RunList
from distlstm.stages.run.events import TrialRow
from distlstm.stages.run.files import METRICS

_MAX_TRIALS_SHOWN = 12


def start_up_table(seconds: Mapping[str, float]) -> Table:
    """The duration of each phase from the start of a training to its first step."""
    table = Table(title="To the first step", title_justify="left", box=None)
    table.add_column("part")
    table.add_column("seconds", justify="right")
    for part, taken in {**seconds, "in all": sum(seconds.values())}.items():
        table.add_row(part, f"{taken:.1f}")
    return table


def comparison_table(metadata: Mapping[str, Any]) -> Table:
    """The model and the baselines, with their metrics on the validation rows."""
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
    """A warning if the linear model alone is at least as accurate; else None."""
    own, linear = metadata["metrics"]["accuracy"], metadata["baseline"]["linear"]["accuracy"]
    if own > linear:
        return None
    return (
        f"The linear model alone is at least as accurate on this data ({linear:.4f}, this model "
        f"{own:.4f}): word order adds little here, or there are too few rows to learn it."
    )


def trials_table(rows: Iterable[TrialRow], metric: str, *, title: str | None = None) -> Table:
    """A table of trials, best first."""
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
        values = [shown(short(row.parameters.get(name))) for name in parameters]
        figures = [short(row.metrics.get(name)) for name in METRICS]
        speed = "" if row.rows_per_second is None else f"{row.rows_per_second:,.0f}"
        epoch = f"{row.epoch} of {row.num_epochs}" if row.num_epochs else ""
        state = row.state if row.error is None else f"{row.state}: {row.error[:60]}"
        table.add_row(
            *(row.trial, *values, *figures, speed, epoch, f"{row.seconds:.0f}"),
            shown(state),
        )
    return table


def runs_table(runs: RunList) -> Table:
    """A line for each run, the newest first."""
    table, content = Table(), runs.as_table()
    for name in content.header:
        justify: Literal["left", "right"] = "right" if name in ("rows", "rows/s") else "left"
        table.add_column(name, justify=justify, overflow="fold")
    for cells in content.cells:
        table.add_row(*map(shown, cells))
    return table


def _rows_shown(rows: Sequence[TrialRow]) -> list[TrialRow]:
    """The best trials, and all running ones."""
    best = {row.trial for row in rows[:_MAX_TRIALS_SHOWN]}
    return [row for row in rows if row.trial in best or row.state == "running"]
