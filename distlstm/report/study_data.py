"""The content of a STUDY directory; that of a running study is incomplete."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from distlstm.errors import UserError
from distlstm.json_text import read_json
from distlstm.regular_file import read_regular
from distlstm.stages.run.files import (
    BEST_CONFIG,
    EPOCHS_FILE,
    METRICS,
    STUDY_FILE,
    TRIALS_FILE,
)
from distlstm.stages.run.tables import read_table


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A row of `trials.parquet`."""

    name: str
    state: str
    """`done`, `stopped` early, `failed`, `running` or, in an interrupted study, `unfinished`."""
    epoch: int
    seconds: float | None
    error: str
    metrics: Mapping[str, float]
    """Finite validation metrics of its best epoch."""
    rows_per_second: float | None
    num_parameters: int | None
    is_chosen: bool
    parameters: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """A row of `epochs.parquet`; times are seconds since 1970."""

    trial: str
    epoch: int
    metrics: Mapping[str, float]
    started: float | None
    ended: float | None
    worker: str


@dataclass(frozen=True, kw_only=True)
class Study:
    """A study, finished or not."""

    name: str
    metric: str
    """The metric by which trials are ranked."""
    is_finished: bool
    seconds: float | None
    trials: Sequence[Trial]
    """Best first."""
    epochs: Sequence[Epoch]
    importance: Mapping[str, float]
    prefer: str
    """`best`, or `fast`: the fastest of those within the tolerance."""
    tolerance: float | None
    """In points, hundredths of the metric."""
    domains: Mapping[str, str]
    """Kind of each searched parameter's domain: `choice`, `loguniform`..."""
    best_config: str
    """TOML; empty if there is none yet."""

    @property
    def less_is_better(self) -> bool:
        """Whether a lower metric is better."""
        return self.metric == "loss"

    @property
    def chosen(self) -> Trial | None:
        """The trial whose model is in `best/`; if there is none, the best so far."""
        ranked = [trial for trial in self.trials if self.metric in trial.metrics]
        return next((trial for trial in self.trials if trial.is_chosen), next(iter(ranked), None))

    @cached_property
    def parameters(self) -> list[str]:
        """Dotted names of the searched parameters."""
        return list(dict.fromkeys(name for trial in self.trials for name in trial.parameters))

    @cached_property
    def goodness(self) -> dict[str, float]:
        """The rank of each trial that has the metric, from near 0 (worst) to 1 (best)."""
        ranked = [trial for trial in self.trials if self.metric in trial.metrics]
        ranked.sort(key=lambda trial: trial.metrics[self.metric], reverse=self.less_is_better)
        return {trial.name: (i + 1) / len(ranked) for i, trial in enumerate(ranked)}


def read_study(path: Path, *, with_epochs: bool = True) -> Study:
    """Read the files that exist; without the epochs, it is faster.

    Raises:
        UserError: the directory is not a study.
    """
    try:
        metadata = read_json(path / STUDY_FILE)
    except FileNotFoundError as error:
        raise UserError(f"{path} is not an output of tune: it has no {STUDY_FILE}.") from error
    identity = metadata.get("run") or {}
    preferred = metadata.get("preferred") or {}
    return Study(
        name=path.absolute().name,
        metric=metadata.get("metric") or identity.get("search.metric", "macro_f1"),
        is_finished=bool(metadata.get("finished")),
        seconds=_finite((metadata.get("result") or {}).get("seconds")),
        trials=[_trial(row) for row in _rows(path / TRIALS_FILE)],
        epochs=[_epoch(row) for row in _rows(path / EPOCHS_FILE)] if with_epochs else [],
        importance=_finite_ones(metadata.get("importance") or {}),
        prefer=preferred.get("prefer", "best"),
        tolerance=_finite(preferred.get("tolerance")),
        domains=_domains(identity),
        best_config=_text(path / BEST_CONFIG),
    )


def _rows(path: Path) -> list[dict[str, Any]]:
    return list(read_table(path).to_pylist()) if path.exists() else []


def _text(path: Path) -> str:
    return read_regular(path).decode("utf-8") if path.exists() else ""


def _domains(identity: Mapping[str, Any]) -> dict[str, str]:
    """The kind of each parameter's domain, from keys like `search.space.model.dropout.uniform`."""
    space = [name.removeprefix("search.space.") for name in identity if "search.space." in name]
    return dict(name.rsplit(".", 1) for name in space)


def _trial(row: Mapping[str, Any]) -> Trial:
    size, speed = _finite(row.get("num_parameters")), _finite(row.get("rows_per_second"))
    return Trial(
        name=str(row["trial"]),
        state=row["state"],
        epoch=row.get("epoch") or 0,
        seconds=_finite(row.get("seconds")),
        error=row.get("error") or "",
        metrics=_finite_ones({name: row.get(name) for name in METRICS}),
        rows_per_second=speed if speed and speed > 0 else None,
        num_parameters=None if size is None else int(size),
        is_chosen=bool(row.get("is_chosen")),
        parameters={name: value for name, value in row.items() if "." in name},
    )


def _epoch(row: Mapping[str, Any]) -> Epoch:
    return Epoch(
        trial=str(row["trial"]),
        epoch=row["epoch"],
        metrics=_finite_ones({name: row.get(name) for name in METRICS}),
        started=_finite(row.get("started")),
        ended=_finite(row.get("ended")),
        worker=row.get("worker") or "unknown",
    )


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _finite_ones(values: Mapping[str, Any]) -> dict[str, float]:
    found = {name: _finite(value) for name, value in values.items()}
    return {name: value for name, value in found.items() if value is not None}
