"""The parts of a prediction output: their names, settings, and sums over their rows."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from distlstm.data.lakehouse import DELTA_LOG
from distlstm.data.units import Unit
from distlstm.errors import UserError
from distlstm.model.calibration import SCORE_BINS
from distlstm.reader_options import DETECT, ReaderOptions
from distlstm.storage import Directory

PREDICTED = ("predicted_label", "predicted_score")
TOP_K = ("predicted_labels", "predicted_scores")
_PARQUET_NAMED = ("parquet", "delta", "iceberg")


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """What determines the content of a part, besides its input."""

    model: str
    """Fingerprint of the model."""
    text_column: str
    columns: tuple[str, ...] | None
    """Input columns to keep; None: all."""
    top_k: int | None
    min_score: float | None
    label_sets: bool = False
    """Whether the model gives each row a set of labels."""
    reader: ReaderOptions = DETECT
    snapshots: tuple[tuple[str, str], ...] = ()
    """Address and snapshot of each table in the input."""

    def kept(self, schema: pa.Schema) -> list[str]:
        """The columns of an input that are copied to the output."""
        return schema.names if self.columns is None else list(self.columns)

    @property
    def to_read(self) -> list[str] | None:
        """The columns to read; None: all."""
        if self.columns is None:
            return None
        return list(dict.fromkeys([*self.columns, self.text_column]))

    @property
    def added(self) -> tuple[str, ...]:
        """The prediction columns, which are added to those of the input."""
        if self.label_sets:
            return TOP_K
        return PREDICTED if self.top_k is None else (*PREDICTED, *TOP_K)


@dataclass(frozen=True, kw_only=True)
class Part:
    """An output file, as its own Parquet footer and the manifest describe it."""

    name: str
    """Path below the output directory."""
    input: str
    unit: dict[str, Any]
    """The `unit_key`: size and time of the input file, row groups and rows."""
    settings: dict[str, Any]
    rows_in: int = 0
    rows_out: int = 0
    rows_without_prediction: dict[str, int] = field(default_factory=dict)
    """Number of rows by reason."""

    def is_of(self, unit: Unit) -> bool:
        """Whether this is the finished part of that unit, with any settings."""
        return self.input == unit.file.path and self.unit == unit_key(unit)

    def matches(self, unit: Unit, settings: PredictionSettings) -> bool:
        """Whether this is the finished part of that unit with those settings."""
        return self.is_of(unit) and self.settings == plain(settings)


@dataclass(kw_only=True)
class Sums:
    """Sums over the predicted rows of one part, or of several; they are in the footers, too."""

    label_counts: Counter[str] = field(default_factory=Counter)
    """Number of rows by predicted label; a label without rows may be missing."""
    score_histogram: list[int] = field(default_factory=lambda: [0] * SCORE_BINS)
    """Number of rows by predicted score, in 20 bins from 0 to 1."""
    num_tokens: int = 0
    num_unknown: int = 0
    num_truncated: int = 0
    num_by_partner: int = 0
    """Number of rows that the linear model answered alone."""

    def add(self, other: "Sums") -> None:
        """Add the sums over other rows."""
        self.label_counts.update(other.label_counts)
        bins = zip(self.score_histogram, other.score_histogram, strict=True)
        self.score_histogram = [count + more for count, more in bins]
        self.num_tokens += other.num_tokens
        self.num_unknown += other.num_unknown
        self.num_truncated += other.num_truncated
        self.num_by_partner += other.num_by_partner


@dataclass
class Parts:
    """Parts by name, and the sums over all of them: those of each would fill the memory."""

    by_name: dict[str, Part] = field(default_factory=dict)
    sums: Sums = field(default_factory=Sums)

    def add(self, part: Part, sums: Sums) -> None:
        """Add a part that is not among them."""
        self.by_name[part.name] = part
        self.sums.add(sums)

    def update(self, other: "Parts") -> None:
        """Add parts that are not among them."""
        self.by_name.update(other.by_name)
        self.sums.add(other.sums)

    @classmethod
    def together(cls, *groups: "Parts") -> "Parts":
        """The parts of all groups, of which no two have the same part."""
        parts = cls()
        for group in groups:
            parts.update(group)
        return parts

    @property
    def names(self) -> Set[str]:
        """Their names."""
        return self.by_name.keys()

    def __len__(self) -> int:
        """Number of parts."""
        return len(self.by_name)

    def __contains__(self, name: str) -> bool:
        """Whether a part of this name is among them."""
        return name in self.by_name

    def __iter__(self) -> Iterator[Part]:
        """The parts in the order in which they were added."""
        yield from self.by_name.values()


def unit_key(unit: Unit) -> dict[str, Any]:
    """Identifies a unit of a file; if the file changes, the key changes."""
    return {
        "size": unit.file.size,
        "modified": unit.file.modified,
        "row_groups": None if unit.row_groups is None else list(unit.row_groups),
        "rows": None if unit.rows is None else list(unit.rows),
    }


def plain(settings: PredictionSettings) -> dict[str, Any]:
    """The settings as JSON values; some only if they are not the default."""
    table = {
        **asdict(settings),
        "reader": settings.reader.without_snapshot().given(),
        "snapshots": dict(settings.snapshots),
    }
    for name in ("label_sets", "reader", "snapshots"):
        if not table[name]:
            del table[name]
    return dict(json.loads(json.dumps(table)))


def part_name(unit: Unit) -> str:
    """The part's path below the output directory: the input's, with a number if it is cut.

    `2026/a.parquet` stays, or becomes `2026/a-00003-of-00008.parquet`; `b.csv.gz` becomes
    `b.csv.gz.parquet`.
    """
    path = PurePosixPath(unit.file.relative)
    stem = path.stem if unit.file.format in _PARQUET_NAMED else path.name
    cut = f"-{unit.index:05d}-of-{unit.num_units:05d}" if unit.num_units > 1 else ""
    return str(path.with_name(f"{stem}{cut}.parquet"))


def refuse_cut(*, label_sets: bool, top_k: int | None, min_score: float | None) -> None:
    """Raise a UserError if `top_k` or `min_score` is given for a model of label sets."""
    if label_sets and not (top_k is None and min_score is None):
        raise UserError(
            "--top-k and --min-score are for models with one label per row; this model writes "
            "every label that reaches its threshold. Leave them out."
        )


def refuse_clash(path: str, kept: Iterable[str], added: Iterable[str]) -> None:
    """Raise a UserError if a kept column has the name of a prediction column."""
    clash = sorted(set(kept) & set(added))
    if clash:
        raise UserError(
            f"{path} already has a column {clash[0]!r}. List the columns to keep with --columns."
        )


def part_names(output: Directory) -> list[str]:
    """The paths of all Parquet files of an output; all of them should be parts."""
    names = (entry.name for entry in output.list())
    return sorted(n for n in names if n.endswith(".parquet") and not n.startswith(f"{DELTA_LOG}/"))
