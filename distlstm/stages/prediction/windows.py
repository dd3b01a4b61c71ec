"""Reads units as windows: rows that go through the model together.

Small files share a window, and a large file is read in several. So a worker's memory and the size
of its batches do not depend on the size or the number of the files.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from distlstm.data.labelled import named
from distlstm.data.opening import check_columns
from distlstm.data.reading import read_batches, read_own_schema, read_schema
from distlstm.data.units import Unit
from distlstm.errors import UserError
from distlstm.stages.prediction.parts import PredictionSettings, refuse_clash
from distlstm.text.columns import TextColumn, is_text_type, read_texts

WINDOW_BYTES = 16 * 2**20
WINDOW_ROWS = 32_768


@dataclass(frozen=True)
class Rows:
    """Consecutive rows of a unit; no rows if the unit is empty."""

    unit: Unit
    batch: pa.RecordBatch
    texts: TextColumn


@dataclass(frozen=True)
class Unreadable:
    """Stands for the rows of a unit that could not be read, from the error on."""

    unit: Unit
    error: UserError


@dataclass(frozen=True)
class Window:
    """Pieces of one or more units, in order."""

    pieces: tuple[Rows | Unreadable, ...]
    complete_rows: int
    """Number of rows of the units that end in this window, including those in earlier windows."""
    complete_bytes: int
    """Size of those units on disk."""

    @property
    def texts(self) -> pa.Array:
        """The texts of all rows (string, [rows])."""
        arrays = [piece.texts.texts for piece in self.pieces if isinstance(piece, Rows)]
        return pa.concat_arrays([pa.array([], pa.string()), *arrays])


def read_windows(
    units: Sequence[Unit], settings: PredictionSettings, *, max_rows: int = WINDOW_ROWS
) -> Iterator[Window]:
    """The rows of units in order, with at least one piece per unit."""
    filling = _Filling()
    for unit in units:
        num_rows = 0
        for piece in _read_unit(unit, settings):
            if filling.num_rows >= max_rows or filling.num_bytes >= WINDOW_BYTES:
                yield filling.window()
                filling = _Filling()
            num_rows += filling.add(piece)
        filling.complete_rows += num_rows
        filling.complete_bytes += unit.num_bytes
    if filling.pieces:
        yield filling.window()


@dataclass
class _Filling:
    """A window that is being filled."""

    pieces: list[Rows | Unreadable] = field(default_factory=list)
    num_rows: int = 0
    num_bytes: int = 0
    complete_rows: int = 0
    complete_bytes: int = 0

    def add(self, piece: Rows | Unreadable) -> int:
        """Add a piece; returns its number of rows."""
        self.pieces.append(piece)
        if isinstance(piece, Unreadable):
            return 0
        self.num_rows += piece.batch.num_rows
        self.num_bytes += piece.batch.nbytes
        return int(piece.batch.num_rows)

    def window(self) -> Window:
        """The filled window."""
        return Window(tuple(self.pieces), self.complete_rows, self.complete_bytes)


def _read_unit(unit: Unit, settings: PredictionSettings) -> Iterator[Rows | Unreadable]:
    try:
        for batch in _read_batches(unit, settings):
            texts = named(
                _texts_or_none, batch.column(settings.text_column), settings.text_column, unit
            )
            yield Rows(unit, batch, texts)
    except UserError as error:
        yield Unreadable(unit, error)


def _read_batches(unit: Unit, settings: PredictionSettings) -> Iterator[pa.RecordBatch]:
    """At least one batch, which is empty if the unit is."""
    schema = read_schema(unit.file, until=settings.to_read)
    kept = settings.kept(schema)
    check_columns(unit.file, schema, [settings.text_column, *kept])
    refuse_clash(unit.file.path, kept, settings.added)
    columns = settings.to_read
    empty = True
    for batch in read_batches(
        unit.file, columns=columns, row_groups=unit.row_groups, rows=unit.rows, one_type=True
    ):
        empty = False
        yield batch
    if empty:
        if columns is None:
            schema = read_own_schema(unit.file)
        else:
            schema = pa.schema([schema.field(name) for name in columns])
        yield pa.RecordBatch.from_pylist([], schema=schema)


def _texts_or_none(column: pa.Array) -> TextColumn:
    """The texts of a column; if it has another type, every value is counted as `not_text`."""
    if is_text_type(column.type):
        return read_texts(column)
    reasons = {"null": column.null_count, "not_text": len(column) - column.null_count}
    return TextColumn(
        texts=pa.nulls(len(column), pa.string()),
        missing={reason: count for reason, count in reasons.items() if count},
    )
