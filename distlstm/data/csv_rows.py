"""Rows of CSV and TSV files: every value is a string, as it is in the file."""

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv

from distlstm.data.files import SourceFile
from distlstm.data.opening import (
    CSV_BLOCK,
    UnreadableFileError,
    check_columns,
    encoding_of,
    is_unicode,
    opened,
    opened_text,
)


def read_csv(
    file: SourceFile, columns: Sequence[str] | None, batch_rows: int, one_type: bool
) -> Iterator[pa.RecordBatch]:
    """Read columns as strings, or binary if they are not all UTF-8; see `reading.read_batches`.

    One type for the whole file takes an extra pass.
    """
    binary: set[str] = set()
    if one_type:
        for block in _csv_blocks(file, columns):
            binary |= {name for name in block.schema.names if not _is_utf8(block.column(name))}
    for block in _csv_blocks(file, columns):
        arrays = [
            block.column(name)
            if name in binary or not _is_utf8(block.column(name))
            else block.column(name).cast(pa.string())
            for name in block.schema.names
        ]
        typed = pa.RecordBatch.from_arrays(arrays, names=block.schema.names)
        for start in range(0, typed.num_rows, batch_rows):
            yield typed.slice(start, batch_rows)


def _csv_blocks(file: SourceFile, columns: Sequence[str] | None) -> Iterator[pa.RecordBatch]:
    names, has_rows = csv_header(file)
    wanted = [name for name in names if columns is None or name in columns]
    check_columns(file, pa.schema([(name, pa.string()) for name in names]), wanted)
    if not has_rows:
        return
    dialect, is_single = _dialect(file), len(names) == 1
    # Arrow skips a UTF-8 mark by itself, and passes bytes that are not UTF-8 on.
    encoding = "utf8" if dialect.encoding.startswith("utf-8") else dialect.encoding
    with opened(file) as source:
        yield from pacsv.open_csv(
            source,
            read_options=pacsv.ReadOptions(block_size=CSV_BLOCK, encoding=encoding),
            parse_options=pacsv.ParseOptions(
                delimiter=dialect.delimiter,
                quote_char='"' if dialect.is_quoted else False,
                newlines_in_values=dialect.is_quoted,
                ignore_empty_lines=not is_single,
            ),
            # In a file of one column, an empty line is a null and "" an empty text.
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()),
                include_columns=wanted,
                strings_can_be_null=is_single,
                quoted_strings_can_be_null=False,
                null_values=[""],
            ),
        )


def csv_header(file: SourceFile) -> tuple[list[str], bool]:
    """The names in the first row, and whether anything follows it.

    Arrow is not used: it rejects a lone header without a newline, and a first row longer than a
    block.
    """
    # In TSV, whether there is quoting is known only from all rows.
    dialect = _dialect(file) if file.format == "tsv" else _quoted_dialect(file)
    with opened_text(file) as lines:
        names = next(filter(None, _reader(lines, dialect)), None)
        if names is None:
            raise OSError("it has no header")
        if not all(map(is_unicode, names)):
            raise OSError("its header is not UTF-8")
        return names, next(lines, None) is not None


@dataclass(frozen=True)
class _Dialect:
    """How the rows of a file are to be told apart."""

    delimiter: str
    is_quoted: bool
    """Whether a value may stand in double quotes, which are doubled within it."""
    encoding: str


@lru_cache(maxsize=64)
def _dialect(file: SourceFile) -> _Dialect:
    """By suffix, first bytes and header; a pass of its own checks the quotes of all rows.

    A TSV file whose quotes do not pair up has no quoting, as GLUE and other published sets.

    Raises:
        UnreadableFileError: a CSV file has a quote that is never closed, or text after one; names
            the line.
    """
    quoted = _quoted_dialect(file)
    fault = _quoting_fault(file, quoted)
    if fault is None:
        return quoted
    if file.format == "tsv":
        return replace(quoted, is_quoted=False)
    raise UnreadableFileError(f"{file.path}, {fault}")


def _quoted_dialect(file: SourceFile) -> _Dialect:
    with opened(file) as source:
        encoding = encoding_of(source.read(4))
    return _Dialect(_delimiter(file), is_quoted=True, encoding=encoding)


def _delimiter(file: SourceFile) -> str:
    """A tab in TSV, a comma in CSV; but another one if it is in the header and a comma is not."""
    if file.format == "tsv":
        return "\t"
    with opened_text(file) as lines:
        header = next(filter(str.strip, lines), "")
    return next((d for d in ",;\t|" if d in header), ",")


def _quoting_fault(file: SourceFile, dialect: _Dialect) -> str | None:
    """What is wrong with the quotes, and in which line; None if nothing is."""
    limit = csv.field_size_limit(CSV_BLOCK)
    try:
        with opened_text(file) as lines:
            rows = _reader(lines, dialect, strict=True)
            start = 1
            try:
                for _ in rows:
                    start = rows.line_num + 1
            except csv.Error as error:
                if "expected after" in str(error):
                    return (
                        f"line {rows.line_num}: text follows a closing quote. A quote within a "
                        "quoted value must be doubled; backslash escapes are not read (Spark: "
                        'write with .option("escape", "\\"")).'
                    )
                return (
                    f"line {start}: a quote opens here and is never closed, or its value is longer "
                    f"than {CSV_BLOCK / 2**20:g} MiB."
                )
    finally:
        csv.field_size_limit(limit)
    return None


def _reader(lines: Iterable[str], dialect: _Dialect, *, strict: bool = False) -> Any:
    return csv.reader(
        lines,
        delimiter=dialect.delimiter,
        quoting=csv.QUOTE_MINIMAL if dialect.is_quoted else csv.QUOTE_NONE,
        strict=strict,
    )


def _is_utf8(column: pa.Array) -> bool:
    try:
        column.cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True
