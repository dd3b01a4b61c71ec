"""Rows of CSV and TSV files: every value is a string, as it is in the file.

An empty value without quotes is null, as it is for the writers of Spark, DuckDB, Polars and Arrow.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from io import TextIOWrapper

import pyarrow as pa
import pyarrow.csv as pacsv

from distlstm.data.csv_dialect import Dialect, dialect_of, first_dialect, python_reader
from distlstm.data.csv_scanner import CSV_BLOCK, ScanError
from distlstm.data.decoded_size import in_batches
from distlstm.data.files import SourceFile
from distlstm.data.opening import (
    UnreadableFileError,
    check_columns,
    is_unicode,
    opened,
    opened_text,
    text_column,
)

_SCANNED_AT_ONCE = 4_096
_CHECKED_AT_ONCE = 2**20


def read_csv(
    file: SourceFile, columns: Sequence[str] | None, batch_rows: int, one_type: bool
) -> Iterator[pa.RecordBatch]:
    """Read columns as strings, or binary if they are not all UTF-8; see `reading.read_batches`.

    One type for the whole file takes an extra pass, if it is not all UTF-8.
    """
    binary: set[str] = set()
    if one_type and not _is_all_utf8(file):
        for block in _csv_blocks(file, columns):
            binary |= {name for name in block.schema.names if not _is_utf8(block.column(name))}
    for block in _csv_blocks(file, columns):
        arrays = [
            block.column(name).cast(pa.binary())
            if name in binary or not _is_utf8(block.column(name))
            else block.column(name).cast(pa.string())
            for name in block.schema.names
        ]
        typed = pa.RecordBatch.from_arrays(arrays, names=block.schema.names)
        for start in range(0, typed.num_rows, batch_rows):
            yield typed.slice(start, batch_rows)


def _is_all_utf8(file: SourceFile) -> bool:
    with opened_text(file) as text:
        return all(map(is_unicode, iter(partial(text.read, _CHECKED_AT_ONCE), "")))


def csv_header(file: SourceFile) -> tuple[list[str], bool]:
    """The column names, and whether there are rows.

    Arrow is not used: it rejects a lone header without a newline, and a first row longer than a
    block.

    Raises:
        UnreadableFileError: there is no header, or that of the reader options does not fit.
    """
    # In TSV, whether there is quoting is known only from all rows.
    dialect = dialect_of(file) if file.format == "tsv" else first_dialect(file)
    with opened_text(file) as lines:
        first, has_more = _first_row(lines, dialect)
        if file.reader.header:
            return _given_header(file, first), first is not None
        if first is None:
            raise OSError("it has no header")
        if not all(map(is_unicode, first)):
            raise UnicodeError("its header is not UTF-8")
        return first, has_more


def _first_row(lines: TextIOWrapper, dialect: Dialect) -> tuple[list[str] | None, bool]:
    """The first row that is not empty, and whether anything follows it."""
    if dialect.is_plain:
        first = next(filter(None, python_reader(lines, dialect)), None)
        return first, next(lines, None) is not None
    rows = dialect.scanner.rows(lines)
    row = next((row for _, row in rows if row), None)
    return None if row is None else [value or "" for value in row], next(rows, None) is not None


def _given_header(file: SourceFile, first: Sequence[str] | None) -> list[str]:
    names = list(file.reader.header)
    if first is not None and len(first) != len(names):
        raise UnreadableFileError(
            f"The first row of {file.path} has {len(first)} values, and --header has "
            f"{len(names)} names: {', '.join(names)}. Is --delimiter right?"
        )
    return names


def _csv_blocks(file: SourceFile, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    names, has_rows = csv_header(file)
    wanted = [name for name in names if columns is None or name in columns]
    check_columns(file, pa.schema([(name, pa.string()) for name in names]), wanted)
    if not has_rows:
        return
    dialect = dialect_of(file)
    if dialect.is_plain:
        yield from _by_arrow(file, dialect, names, wanted)
    else:
        yield from _by_scanner(file, dialect, names, wanted)


def _by_arrow(
    file: SourceFile, dialect: Dialect, names: Sequence[str], wanted: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    # Arrow skips a UTF-8 mark by itself, and passes bytes that are not UTF-8 on.
    encoding = "utf8" if dialect.encoding.startswith("utf-8") else dialect.encoding
    with opened(file) as source:
        yield from pacsv.open_csv(
            source,
            read_options=pacsv.ReadOptions(
                block_size=CSV_BLOCK, encoding=encoding, column_names=file.reader.header or None
            ),
            parse_options=pacsv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char=dialect.quote or False,
                newlines_in_values=dialect.quote != "",
                ignore_empty_lines=len(names) > 1,  # else it is a null
            ),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()),
                include_columns=wanted,
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                null_values=dialect.null_values,
            ),
        )


def _by_scanner(
    file: SourceFile, dialect: Dialect, names: Sequence[str], wanted: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    places = [names.index(name) for name in wanted]
    with opened_text(file) as text:
        rows = _full_rows(dialect, text, len(names))
        if not file.reader.header:
            next(rows)
        for some in in_batches(rows, _size, _SCANNED_AT_ONCE):
            columns = [text_column([row[place] for row in some]) for place in places]
            yield pa.RecordBatch.from_arrays(columns, names=wanted)


def _size(row: Sequence[str | None]) -> int:
    return sum(len(value) for value in row if value is not None)


def _full_rows(
    dialect: Dialect, text: TextIOWrapper, num_columns: int
) -> Iterator[list[str | None]]:
    """The rows, which all have the same number of values; empty lines as in `_by_arrow`."""
    has_begun = False
    for line, row in dialect.scanner.rows(text):
        if not row and (num_columns > 1 or not has_begun):
            continue
        has_begun = True
        if row and len(row) != num_columns:
            raise ScanError(f"line {line}: {len(row)} values instead of {num_columns}")
        yield row or [None]


def _is_utf8(column: pa.Array) -> bool:
    try:
        column.cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True
