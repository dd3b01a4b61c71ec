"""Output parts of a prediction run: their names, and the ledger that their footers are."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.data.units import Unit

PREDICTED = ("predicted_label", "predicted_score")
TOP_K = ("predicted_labels", "predicted_scores")
FOOTER_KEY = b"distlstm"
SCORE_BINS = 20


@dataclass(frozen=True, kw_only=True)
class PredictionSettings:
    """What decides the content of a part, besides its input."""

    model: str
    """Fingerprint of the model."""
    text_column: str
    columns: tuple[str, ...] | None
    """Input columns to keep; None is all."""
    top_k: int | None
    min_score: float | None


@dataclass(frozen=True, kw_only=True)
class Part:
    """An output file and what it holds; kept in the file's own Parquet footer."""

    name: str
    """Path below the output directory."""
    input: str
    unit: dict[str, Any]
    """The unit's key: path, size, time and row groups of the input."""
    settings: dict[str, Any]
    rows_in: int = 0
    rows_out: int = 0
    rows_without_prediction: dict[str, int] = field(default_factory=dict)
    label_counts: dict[str, int] = field(default_factory=dict)
    score_histogram: list[int] = field(default_factory=lambda: [0] * SCORE_BINS)
    """Rows by predicted score, in 20 bins from 0 to 1."""
    num_tokens: int = 0
    num_unknown: int = 0
    num_truncated: int = 0
    seconds: float = 0.0

    def matches(self, unit: Unit, settings: PredictionSettings) -> bool:
        """Whether this is the finished part of that unit under those settings."""
        return self.unit == unit_key(unit) and self.settings == plain(settings)


def unit_key(unit: Unit) -> dict[str, Any]:
    """What identifies a unit: a changed input file has another key."""
    return {
        "path": unit.file.path,
        "size": unit.file.size,
        "modified": unit.file.modified,
        "row_groups": None if unit.row_groups is None else list(unit.row_groups),
    }


def plain(settings: PredictionSettings) -> dict[str, Any]:
    """The settings as JSON gives them back."""
    return dict(json.loads(json.dumps(asdict(settings))))


def part_name(unit: Unit) -> str:
    """The part's path below the output directory: the input's, numbered where it was cut.

    `2026/a.parquet` stays, or becomes `2026/a-00003-of-00008.parquet`; `b.csv.gz` becomes
    `b.csv.gz.parquet`.
    """
    path = PurePosixPath(unit.file.relative)
    stem = path.stem if unit.file.format == "parquet" else path.name
    cut = f"-{unit.index:05d}-of-{unit.num_units:05d}" if unit.num_units > 1 else ""
    return str(path.with_name(f"{stem}{cut}.parquet"))


def read_part(path: Path) -> Part | None:
    """The ledger entry in a part's footer; None if the file is absent, damaged or not a part."""
    try:
        metadata = pq.read_metadata(path)
        part = Part(**json.loads((metadata.metadata or {})[FOOTER_KEY]))
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return None
    return part if metadata.num_rows == part.rows_out else None
