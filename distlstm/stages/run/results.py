"""The results of the commands: frozen dataclasses that print as text or as notebook tables."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from html import escape
from typing import Any

from distlstm.text.control import visible

MAX_ROWS = 60


@dataclass(frozen=True)
class TextTable:
    """A small table: column names, and cells as text."""

    header: Sequence[str]
    cells: Sequence[Sequence[str]]
    num_left_out: int = 0
    """Further rows, for which no cells were made."""

    @property
    def num_not_shown(self) -> int:
        """Rows beyond those that are shown."""
        return self.num_left_out + max(0, len(self.cells) - MAX_ROWS)


class Result(ABC):
    """A result that `print` shows as aligned text and a notebook as an HTML table."""

    @abstractmethod
    def as_table(self) -> TextTable:
        """The result as a table."""

    def to_json(self) -> dict[str, Any]:
        """The object that the command prints with `--json`."""
        return asdict(self)  # type: ignore[call-overload, no-any-return]

    def __str__(self) -> str:
        """The table as lines of text."""
        table = self.as_table()
        lines = [[*map(visible, line)] for line in (table.header, *table.cells[:MAX_ROWS])]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        text = "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
            for line in lines
        )
        left = table.num_not_shown
        return f"{text}\n... and {left} more rows" if left else text

    def _repr_html_(self) -> str:
        """The table as HTML, for a notebook."""
        table = self.as_table()
        head = "".join(f"<th>{escape(name)}</th>" for name in table.header)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in line) + "</tr>"
            for line in table.cells[:MAX_ROWS]
        )
        left = table.num_not_shown
        more = f"<p>... and {left:,} more rows</p>" if left else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


@dataclass(frozen=True, kw_only=True)
class TrainResult(Result):
    """The result of `train`; its fields are the keys of the `--json` result, except `metadata`."""

    model: str
    """The MODEL directory."""
    metrics: dict[str, float]
    """Metrics on the validation rows."""
    epochs: int
    steps: int
    seconds: float
    """Duration of the whole command."""
    tokens_per_second: float
    """Speed of the training steps, over all workers."""
    resumed: bool
    metadata: Mapping[str, Any] = field(repr=False)
    """The content of `model.json`."""

    def to_json(self) -> dict[str, Any]:
        """All fields except the metadata, which are in the MODEL directory."""
        table = asdict(self)
        del table["metadata"]
        return table

    def as_table(self) -> TextTable:
        """Model, metrics, epochs and speed."""
        return _pairs(
            {
                "model": self.model,
                **self.metrics,
                "epochs": self.epochs,
                "steps": self.steps,
                "seconds": round(self.seconds, 1),
                "tokens_per_second": round(self.tokens_per_second),
                "resumed": self.resumed,
            }
        )


@dataclass(frozen=True, kw_only=True)
class PretrainResult(Result):
    """The result of `pretrain`; its fields are the keys of the `--json` result."""

    language_model: str
    """Its directory."""
    perplexity: float
    """On validation rows, of the epoch whose weights are kept."""
    rows: int
    """Training rows."""
    tokens: int
    """Tokens of these rows."""
    epochs: int
    steps: int
    seconds: float
    """Duration of the whole command."""
    tokens_per_second: float
    """Speed of the training steps, over all workers."""
    resumed: bool

    def as_table(self) -> TextTable:
        """All fields."""
        return _pairs(
            {
                **self.to_json(),
                "seconds": round(self.seconds, 1),
                "tokens_per_second": round(self.tokens_per_second),
            }
        )


@dataclass(frozen=True, kw_only=True)
class ServeResult(Result):
    """The result of `serve`, once it has ended; its fields are the keys of the `--json` result."""

    model: str
    """The MODEL directory."""
    fingerprint: str
    """Of the model that was served first."""
    url: str
    """Where the service was reached."""
    seconds: float
    """Duration of the whole command."""

    def as_table(self) -> TextTable:
        """All fields."""
        return _pairs({**self.to_json(), "seconds": round(self.seconds, 1)})


@dataclass(frozen=True, kw_only=True)
class TuneResult(Result):
    """The result of `tune`; its fields are the keys of the `--json` result."""

    study: str
    """The STUDY directory."""
    best: dict[str, Any]
    """The trial whose model is in `best/`: its parameters and validation metrics."""
    trials: list[dict[str, Any]]
    """All trials, best first."""
    seconds: float
    resumed: bool

    def as_table(self) -> TextTable:
        """One row per trial, best first."""
        parameters = list(dict.fromkeys(name for t in self.trials for name in t["parameters"]))
        metrics = list(dict.fromkeys(name for t in self.trials for name in t["metrics"]))
        cells = [
            [
                f"{trial['trial']}{' (best)' if trial['is_chosen'] else ''}",
                *(_shown(trial["parameters"].get(name)) for name in parameters),
                *(_shown(trial["metrics"].get(name)) for name in metrics),
                trial["state"],
            ]
            for trial in self.trials
        ]
        return TextTable(["trial", *parameters, *metrics, "state"], cells)


@dataclass(frozen=True, kw_only=True)
class EvaluationResult(Result):
    """The result of `evaluate`: the content of `metrics.json`."""

    num_rows: int
    accuracy: float
    macro_f1: float
    macro_recall: float
    micro_f1: float
    weighted_f1: float
    mcc: float
    log_loss: float
    ece: float
    labels: list[str]
    per_label: dict[str, dict[str, Any]]
    """By label: precision, recall, f1, support."""
    confusion_matrix: list[list[int]] | None = None
    """Rows by true label and columns by predicted label; None for a model of label sets."""

    def to_json(self) -> dict[str, Any]:
        """The content of `metrics.json`."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def as_table(self) -> TextTable:
        """The metrics over all rows, without those by label."""
        table = self.to_json()
        return _pairs({name: v for name, v in table.items() if isinstance(v, int | float)})


@dataclass(frozen=True, kw_only=True)
class BatchPredictResult(Result):
    """The result of `batch_predict`; its fields are the keys of the `--json` result."""

    output: str
    rows_in: int
    rows_out: int
    rows_without_prediction: int
    parts_written: int
    parts_reused: int
    seconds: float
    rows_per_second: float
    """Over all workers, without their start-up."""
    tokens_per_second: float
    partner_share: float
    """Share of the rows that the linear model answered alone."""

    def as_table(self) -> TextTable:
        """All figures."""
        return _pairs(asdict(self))


@dataclass(frozen=True, kw_only=True)
class Estimate(Result):
    """The result of `estimate`; its fields are the keys of `batch-predict --dry-run --json`."""

    files: int
    bytes: int
    """Size on disk."""
    rows: int
    rows_are_exact: bool
    """False: extrapolated from the rows per byte of the sample."""
    parts: int
    parts_done: int
    sampled_rows: int
    tokens_per_row: float
    unknown_share: float
    truncated_share: float
    rows_without_text: int
    """Number of such rows in the sample."""
    rows_per_second_per_worker: float
    workers: int
    seconds: float
    """Expected duration of the remaining work, including start-up."""
    worker_memory_bytes: int
    """Expected peak memory of a worker."""

    def as_table(self) -> TextTable:
        """All figures."""
        return _pairs(asdict(self))


@dataclass(frozen=True, kw_only=True)
class Verification(Result):
    """The result of `verify`; its fields are the keys of the `--json` result."""

    output: str
    parts: int
    rows_out: int
    """Number of rows in the complete parts."""
    inputs_gone: int
    """Number of input files that no longer exist, so that their rows cannot be counted."""
    faults: list[str]
    seconds: float

    def as_table(self) -> TextTable:
        """Counts, and each fault."""
        table = asdict(self)
        faults = {f"fault {i}": fault for i, fault in enumerate(table.pop("faults"), start=1)}
        return _pairs({**table, "faults": len(faults), **faults})


def _pairs(values: Mapping[str, Any]) -> TextTable:
    return TextTable(["", "value"], [[name, _shown(value)] for name, value in values.items()])


def _shown(value: Any) -> str:
    if isinstance(value, float):
        if 0 < abs(value) < 1e-3:
            return f"{value:.4g}"
        return f"{value:,.4f}" if abs(value) < 100 else f"{value:,.0f}"
    return "" if value is None else str(value)
