"""The trials of a study as tables, and the choice of the best one."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.atomic import replace_file
from distlstm.config import SearchConfig
from distlstm.stages.run.events import TrialRow
from distlstm.stages.run.files import METRICS

_TYPES_OF_NONE = {
    **dict.fromkeys((*METRICS, "rows_per_second"), pa.float64()),
    "num_parameters": pa.int64(),
}
"""Types of columns without any value; a column that is not listed here becomes text."""
_POINTS = 100
_OPEN = ("running", "unfinished")


def choose(rows: Sequence[TrialRow], search: SearchConfig) -> TrialRow | None:
    """The trial whose model is used; None if no trial has a model. `rows` are sorted, best first.

    With `prefer = "fast"`, it is the fastest trial in prediction among those whose metric is at
    most `tolerance` points worse than the best.
    """
    good = about_as_good(rows, search)
    if search.prefer == "fast":
        return max(good, key=lambda row: row.rows_per_second or 0.0, default=None)
    return good[0] if good else None


def worth_keeping(rows: Sequence[TrialRow], search: SearchConfig) -> set[str]:
    """The trials that may still be chosen, whatever the other trials achieve.

    All running and unfinished trials are among them. Their metrics do not rule out a trial that has
    ended, because they can still get worse: an epoch with a better LSTM may give a worse ensemble.
    """
    open_ = {row.trial for row in rows if row.state in _OPEN}
    ended = [row for row in rows if row.state not in _OPEN]
    good = about_as_good(ended, search) if search.prefer == "fast" else ended[:1]
    kept: list[TrialRow] = []
    for row in good:  # best first, so one is dominated if it is not the fastest so far
        if all((row.rows_per_second or 0.0) > (k.rows_per_second or 0.0) for k in kept):
            kept.append(row)
    return open_ | {row.trial for row in kept}


def about_as_good(rows: Sequence[TrialRow], search: SearchConfig) -> list[TrialRow]:
    """The trials within the tolerance of the best one; `rows` are sorted, best first."""
    with_figures = [row for row in rows if row.metrics]
    if not with_figures:
        return []
    best = with_figures[0].metrics[search.metric]
    margin = search.tolerance / _POINTS
    return [row for row in with_figures if abs(row.metrics[search.metric] - best) <= margin]


def write_trials(path: Path, rows: Sequence[TrialRow]) -> None:
    """Write one row per trial, in this order; each parameter and metric is a column."""
    flat = []
    for row in rows:
        columns = asdict(row)
        parameters, metrics = columns.pop("parameters"), columns.pop("metrics")
        flat.append({**columns, **dict.fromkeys(METRICS), **metrics, **parameters})
    _write(path, flat)


def write_epochs(path: Path, epochs: Sequence[dict[str, Any]]) -> None:
    """Write one row per trial and epoch."""
    _write(path, epochs)


def _write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = {name: pa.array([row.get(name) for row in rows]) for name in names}
    typed = {
        name: column.cast(_TYPES_OF_NONE.get(name, pa.string()))
        if pa.types.is_null(column.type)
        else column
        for name, column in columns.items()
    }
    with replace_file(path) as temporary:
        pq.write_table(pa.table(typed), temporary)
