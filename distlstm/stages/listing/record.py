"""The records of runs: what `distlstm runs` lists."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from distlstm.stages.run.results import Result, TextTable

Kind = Literal["model", "language model", "study", "evaluation", "predictions"]
State = Literal["finished", "unfinished", "running", "damaged"]


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """An output of a command."""

    name: str
    """Path below the directory that was listed; `.` for that itself."""
    location: str
    """Absolute path or URI."""
    kind: Kind
    state: State
    """`running` if a command is at work on it; `damaged` if its record cannot be read."""
    when: datetime
    """Time of the last change of its record, in UTC."""
    data: str = ""
    """What it was trained on, evaluated on or predicted; empty if that is not recorded."""
    model: str = ""
    """Of an evaluation or a prediction: the model's name if it is listed too, else its
    fingerprint."""
    metric: str = ""
    """The name of the metric by which it is judged."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """On validation rows, or those of the evaluation; of a study, those of its best trial."""
    rows: int | None = None
    """Rows of training, of the evaluation, or predicted."""
    rows_per_second: float | None = None
    """That one worker predicts with the best model of a study."""
    trials: int | None = None
    """Of a study."""
    report: str = ""
    """The file name of its report; empty if there is none."""
    settings: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """Its configuration, by dotted name."""
    fingerprint: str = field(default="", repr=False)
    """Of a finished model."""
    problem: str = ""
    """Why it is damaged."""

    @property
    def value(self) -> float | None:
        """The value of its metric."""
        return self.metrics.get(self.metric)

    def to_json(self) -> dict[str, Any]:
        """All fields; the time is in ISO 8601."""
        return {**asdict(self), "when": f"{self.when:%Y-%m-%dT%H:%M:%SZ}"}


@dataclass(frozen=True, kw_only=True)
class RunList(Result):
    """The result of `runs`: a sequence of records, the newest first."""

    path: str
    """The directory that was listed."""
    runs: Sequence[RunRecord]
    unreadable: Sequence[str] = ()
    """Directories below it that could not be listed."""

    def __iter__(self) -> Iterator[RunRecord]:
        """The records, the newest first."""
        return iter(self.runs)

    def __len__(self) -> int:
        """The number of records."""
        return len(self.runs)

    def to_json(self) -> dict[str, Any]:
        """The object that `distlstm runs --json` prints."""
        return {
            "path": self.path,
            "runs": [run.to_json() for run in self.runs],
            "unreadable": list(self.unreadable),
        }

    def as_table(self) -> TextTable:
        """A row for each run."""
        header = ["run", "kind", "state", "when", "data", "metric", "rows", "rows/s"]
        return TextTable(header, [_cells(run) for run in self.runs])


def _cells(run: RunRecord) -> list[str]:
    rate = run.rows_per_second
    return [
        run.name,
        run.kind,
        run.state,
        f"{run.when.astimezone():%Y-%m-%d %H:%M}",
        run.data.rpartition("/")[2],
        "" if run.value is None else f"{run.metric} {run.value:.4g}",
        "" if run.rows is None else f"{run.rows:,}",
        "" if rate is None else f"{rate:,.0f}",
    ]
