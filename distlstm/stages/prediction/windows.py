"""Reading units as windows: rows that go through the model together.

Small files share a window, a large one passes in several. So neither a file's size nor the number
of files changes how much a worker holds, or how well its batches are filled.
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
    """Consecutive rows of a unit; none if the unit has none."""

    unit: Unit
    batch: pa.RecordBatch
    texts: TextColumn


@dataclass(frozen=True)
class Unreadable:
    """What stands in the place of a unit's rows, or of those not yet read, and why."""

    unit: Unit
    error: UserError


@dataclass(frozen=True)
class Window:
    """Pieces of one unit or several, in order."""

    pieces: tuple[Rows | Unreadable, ...]
    complete_rows: int
    """Rows of the units whose last piece is here, earlier pieces included."""
    complete_bytes: int
    """What those units are on disk."""

    @property
    def texts(self) -> pa.Array:
        """The texts of all rows (string, [rows])."""
        arrays = [piece.texts.texts for piece in self.pieces if isinstance(piece, Rows)]
        return pa.concat_arrays([pa.array([], pa.string()), *arrays])


def read_windows(
    units: Sequence[Unit], settings: PredictionSettings, *, max_rows: int = WINDOW_ROWS
) -> Iterator[Window]:
    """The rows of units in order: at least one piece of each unit."""
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
        """Add a piece; its rows."""
        self.pieces.append(piece)
        if isinstance(piece, Unreadable):
            return 0
        self.num_rows += piece.batch.num_rows
        self.num_bytes += piece.batch.nbytes
        return int(piece.batch.num_rows)

    def window(self) -> Window:
        """What it was filled with."""
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
    """At least one batch, empty if the unit is."""
    schema = read_schema(unit.file)
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
    """The texts of a column; of one that holds something else, every row is `not_text`."""
    if is_text_type(column.type):
        return read_texts(column)
    reasons = {"null": column.null_count, "not_text": len(column) - column.null_count}
    return TextColumn(
        texts=pa.nulls(len(column), pa.string()),
        missing={reason: count for reason, count in reasons.items() if count},
    )
