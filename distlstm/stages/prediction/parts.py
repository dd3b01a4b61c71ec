"""The parts of a prediction output: their names, and the ledger entries in their footers."""

import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.data.filesystem import open_filesystem
from distlstm.data.lakehouse import DELTA_LOG
from distlstm.data.units import Unit
from distlstm.errors import UserError
from distlstm.model.calibration import SCORE_BINS
from distlstm.reader_options import DETECT, ReaderOptions
from distlstm.regular_file import regular_size
from distlstm.storage import Directory, LocalStorage, UnreachableError

PREDICTED = ("predicted_label", "predicted_score")
TOP_K = ("predicted_labels", "predicted_scores")
FOOTER_KEY = b"distlstm"
FOOTERS_AT_ONCE = 8
STORED_FOOTERS_AT_ONCE = 64
"""An object store takes long to answer, and answers many at once."""
_NAMES_AT_ONCE = 4_096
_PARQUET_NAMED = ("parquet", "delta", "iceberg")
_TAIL_BYTES = 8  # after the footer: its length and "PAR1"


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
    """An output file and its figures, which are stored in its own Parquet footer."""

    name: str
    """Path below the output directory."""
    input: str
    unit: dict[str, Any]
    """The `unit_key`: size and time of the input file, row groups and rows."""
    settings: dict[str, Any]
    rows_in: int = 0
    rows_out: int = 0
    rows_without_prediction: dict[str, int] = field(default_factory=dict)
    label_counts: dict[str, int] = field(default_factory=dict)
    score_histogram: list[int] = field(default_factory=lambda: [0] * SCORE_BINS)
    """Number of rows by predicted score, in 20 bins from 0 to 1."""
    num_tokens: int = 0
    num_unknown: int = 0
    num_truncated: int = 0
    num_by_partner: int = 0
    """Number of rows that the linear model answered alone."""

    def is_of(self, unit: Unit) -> bool:
        """Whether this is the finished part of that unit, with any settings."""
        return self.input == unit.file.path and self.unit == unit_key(unit)

    def matches(self, unit: Unit, settings: PredictionSettings) -> bool:
        """Whether this is the finished part of that unit with those settings."""
        return self.is_of(unit) and self.settings == plain(settings)


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


def read_part(output: Directory, name: str) -> Part | None:
    """The part described in a file's footer; None if the file is missing, damaged or no part.

    Raises:
        UnreachableError: the object store did not answer, so that nothing is known of the part.
    """
    filesystem, directory = open_filesystem(output.location)
    try:
        if isinstance(output, LocalStorage):
            regular_size(output.path / name)
        with filesystem.open_input_file(f"{directory}/{name}") as file:
            footer, size = pq.read_metadata(file), file.size()
        part = Part(**json.loads((footer.metadata or {})[FOOTER_KEY]))
        whole = size == _size_by_footer(footer)
    except UnreachableError:
        raise
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return None
    return part if whole and footer.num_rows == part.rows_out else None


def part_names(output: Directory) -> list[str]:
    """The paths of all Parquet files of an output; all of them should be parts."""
    names = (entry.name for entry in output.list())
    return sorted(n for n in names if n.endswith(".parquet") and not n.startswith(f"{DELTA_LOG}/"))


def read_parts(output: Directory, names: Iterable[str]) -> dict[str, Part]:
    """The parts with these names that exist and are complete."""
    names, parts = list(names), dict[str, Part]()
    at_once = FOOTERS_AT_ONCE if output.is_local else STORED_FOOTERS_AT_ONCE
    with ThreadPoolExecutor(at_once) as threads:
        for start in range(0, len(names), _NAMES_AT_ONCE):  # a call that waits takes memory
            some = names[start : start + _NAMES_AT_ONCE]
            found = threads.map(lambda name: read_part(output, name), some)
            parts |= {n: part for n, part in zip(some, found, strict=True) if part is not None}
    return parts


def _size_by_footer(footer: pq.FileMetaData) -> int:
    """The size in bytes that the file must have: in our parts, the footer follows the data."""
    ends = [4]
    for group in map(footer.row_group, range(footer.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            pages = (column.dictionary_page_offset, column.data_page_offset)
            start = min(offset for offset in pages if offset)
            ends.append(start + column.total_compressed_size)
    return max(ends) + int(footer.serialized_size) + _TAIL_BYTES
