"""Reads files as Arrow record batches, with every value as it is in the file.

CSV columns are strings ("007" stays "007"); JSON lines keep their JSON types. Text that is not
UTF-8 does not stop the reading: its column is binary, and `text.columns` makes the text null.
"""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq

from distlstm.data.files import SourceFile, open_filesystem
from distlstm.errors import UserError

BATCH_ROWS = 16_384
_BATCH_BYTES = 16 * 2**20
_PARQUET_BUFFER = 2**20  # bytes read ahead of each column
_CSV_BLOCK = 16 * 2**20  # bytes; a row must fit


class UnreadableFileError(UserError):
    """A file that cannot be read in the format of its suffix."""


def unreadable(file: SourceFile, error: Exception) -> UnreadableFileError:
    """The error for a file that its reader rejected, in one sentence."""
    if file.size == 0:
        return UnreadableFileError(f"{file.path} is empty (0 bytes).")
    reason = str(error).strip().split("\n")[0].rstrip(".")
    if "straddles two block boundaries" in reason:
        reason = f"a row is longer than {_CSV_BLOCK / 2**20:g} MiB, or a quote is never closed"
    return UnreadableFileError(f"Cannot read {file.path} as {file.format}: {reason}.")


def read_schema(file: SourceFile) -> pa.Schema:
    """The columns of a file, partition columns last, without reading the whole file.

    Only Parquet files state their types: CSV columns count as string, JSON lines columns as null.
    """
    schema = read_own_schema(file)
    for name in file.partitions:
        schema = schema if name in schema.names else schema.append(pa.field(name, pa.string()))
    return schema


def read_own_schema(file: SourceFile) -> pa.Schema:
    """`read_schema` without the partition columns that are not in the file itself."""
    if file.format == "parquet":
        with _open(file) as source:
            return pq.read_schema(source)
    if file.format == "jsonl":
        rows = next(_jsonl_rows(file, BATCH_ROWS), [])
        names = dict.fromkeys(name for row in rows for name in row)
        return pa.schema([(name, pa.null()) for name in names if _is_unicode(name)])
    return pa.schema([(name, pa.string()) for name in _csv_header(file)[0]])


def count_rows(file: SourceFile) -> int:
    """Number of rows of a Parquet file, from its footer.

    Raises:
        UnreadableFileError: the file is damaged.
    """
    with _open(file) as source:
        return int(pq.read_metadata(source).num_rows)


def read_batches(
    file: SourceFile,
    *,
    columns: Sequence[str] | None = None,
    row_groups: Sequence[int] | None = None,
    rows: tuple[int, int] | None = None,
    batch_rows: int = BATCH_ROWS,
    one_type: bool = False,
) -> Iterator[pa.RecordBatch]:
    """Read the rows of a file, in order; batches of long rows are shorter.

    Args:
        file: any supported file.
        columns: the columns to read, also Hive partition columns; None: those in the file itself.
        row_groups: the row groups of a Parquet file to read; None: all.
        rows: the first row to read in these row groups, and the one after the last; None: all.
        batch_rows: most rows of a batch.
        one_type: give a column the same type in all batches even if the file does not state types;
            CSV and JSON lines are then read twice. Always so if `columns` is None.

    Raises:
        UserError: a column is missing, or the file does not have the format of its suffix.
    """
    if columns is not None:
        check_columns(file, read_schema(file), columns)
    if file.format == "parquet":
        batches = _read_parquet(file, columns, batch_rows, row_groups)
        batches = batches if rows is None else _slice_rows(batches, *rows)
    else:
        one_type = one_type or columns is None
        batches = _READERS[file.format](file, columns, batch_rows, one_type)
    for batch in batches:
        yield batch if columns is None else _select(batch, file, columns)


def check_columns(file: SourceFile, schema: pa.Schema, columns: Sequence[str]) -> None:
    """Check that the schema has each of `columns` exactly once.

    Raises:
        UserError: one is missing (the message lists those that exist) or ambiguous.
    """
    for name in columns:
        if name not in schema.names:
            raise UserError(
                f"No column {name!r} in {file.path}. It has: {', '.join(schema.names) or 'none'}."
            )
        if schema.names.count(name) > 1:
            raise UserError(f"{file.path} has more than one column {name!r}; rename one of them.")


def _select(batch: pa.RecordBatch, file: SourceFile, columns: Sequence[str]) -> pa.RecordBatch:
    """The requested columns; a JSON lines column that is absent from these rows is null."""
    arrays = [
        batch.column(name)
        if name in batch.schema.names
        else pa.array([file.partitions.get(name)] * batch.num_rows, pa.string())
        for name in columns
    ]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


@contextmanager
def _open(file: SourceFile) -> Iterator[Any]:
    """Open a file, decompressed; errors of its reader become an UnreadableFileError."""
    filesystem, path = open_filesystem(file.path)
    try:
        if file.format == "parquet":
            with filesystem.open_input_file(path) as source:
                yield source
        else:
            _refuse_parquet(filesystem, path)
            with filesystem.open_input_stream(path, compression=file.compression) as source:
                yield source
    except (pa.ArrowException, OSError, UnicodeError, csv.Error) as error:
        raise unreadable(file, error) from error


def _refuse_parquet(filesystem: Any, path: str) -> None:
    with filesystem.open_input_file(path) as source:
        if source.read(4) == b"PAR1":
            raise OSError("its content is Parquet")


def _read_parquet(
    file: SourceFile,
    columns: Sequence[str] | None,
    batch_rows: int,
    row_groups: Sequence[int] | None,
) -> Iterator[pa.RecordBatch]:
    """Read column chunks as streams, so that only part of a large row group is in memory."""
    with _open(file) as source:
        parquet = pq.ParquetFile(
            source,
            page_checksum_verification=True,
            pre_buffer=False,
            buffer_size=_PARQUET_BUFFER,
        )
        names = parquet.schema_arrow.names if columns is None else columns
        wanted = [name for name in names if name in parquet.schema_arrow.names]
        yield from parquet.iter_batches(
            batch_size=min(batch_rows, _rows_that_fit(parquet.metadata, row_groups)),
            row_groups=row_groups,
            columns=wanted,
            use_threads=False,
        )


def _rows_that_fit(footer: pq.FileMetaData, row_groups: Sequence[int] | None) -> int:
    """How many rows of decoded bytes make a batch, in the row group with the longest rows."""
    indices = range(footer.num_row_groups) if row_groups is None else row_groups
    groups = [footer.row_group(i) for i in indices]
    longest = max((g.total_byte_size / max(1, g.num_rows) for g in groups), default=0)
    return max(1, int(_BATCH_BYTES / max(1, longest)))


def _slice_rows(
    batches: Iterator[pa.RecordBatch], first: int, end: int
) -> Iterator[pa.RecordBatch]:
    start = 0
    for batch in batches:
        low, high = max(first - start, 0), min(end - start, batch.num_rows)
        if low < high:
            yield batch.slice(low, high - low)
        start += batch.num_rows
        if start >= end:
            return


def _read_csv(
    file: SourceFile, columns: Sequence[str] | None, batch_rows: int, one_type: bool
) -> Iterator[pa.RecordBatch]:
    """Read columns as strings, or as binary if they are not all UTF-8.

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
    names, has_rows = _csv_header(file)
    wanted = [name for name in names if columns is None or name in columns]
    check_columns(file, pa.schema([(name, pa.string()) for name in names]), wanted)
    if not has_rows:
        return
    with _open(file) as source:
        yield from pacsv.open_csv(
            source,
            read_options=pacsv.ReadOptions(block_size=_CSV_BLOCK),
            parse_options=pacsv.ParseOptions(delimiter=_delimiter(file), newlines_in_values=True),
            convert_options=pacsv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()),
                include_columns=wanted,
                strings_can_be_null=False,
            ),
        )


def _csv_header(file: SourceFile) -> tuple[list[str], bool]:
    """The names in the first row, and whether anything follows it.

    Arrow is not used: it rejects a lone header without a newline, and a first row longer than a
    block.
    """
    with _open(file) as source:
        lines = io.TextIOWrapper(
            io.BufferedReader(source), "utf-8-sig", errors="surrogateescape", newline=""
        )
        names = next(filter(None, csv.reader(lines, delimiter=_delimiter(file))), None)
        if names is None:
            raise OSError("it has no header")
        if not all(map(_is_unicode, names)):
            raise OSError("its header is not UTF-8")
        return names, next(lines, None) is not None


def _delimiter(file: SourceFile) -> str:
    return "\t" if file.format == "tsv" else ","


def _is_utf8(column: pa.Array) -> bool:
    try:
        column.cast(pa.string())
    except pa.ArrowInvalid:
        return False
    return True


def _read_jsonl(
    file: SourceFile, columns: Sequence[str] | None, batch_rows: int, one_type: bool
) -> Iterator[pa.RecordBatch]:
    types: dict[str, pa.DataType | None] = dict.fromkeys(columns or ())
    if one_type:
        types |= _jsonl_types(file, columns)
    for rows in _jsonl_rows(file, batch_rows):
        arrays = [
            _json_column([row.get(name, file.partitions.get(name)) for row in rows], kind)
            for name, kind in types.items()
        ]
        arrays = [a.cast(pa.string()) if pa.types.is_null(a.type) else a for a in arrays]
        yield pa.RecordBatch.from_arrays(arrays, names=list(types))


def _jsonl_types(file: SourceFile, columns: Sequence[str] | None) -> dict[str, pa.DataType]:
    """One type for each column in the whole file, from an extra pass."""
    types: dict[str, pa.DataType] = {}
    for rows in _jsonl_rows(file, BATCH_ROWS):
        for name in dict.fromkeys(name for row in rows for name in row):
            if columns is not None and name not in columns:
                continue
            if not _is_unicode(name):
                raise unreadable(file, ValueError(f"the column name {name!r} is not UTF-8"))
            found = _json_column([row.get(name) for row in rows], None).type
            types[name] = _common_type(types.get(name, pa.null()), found)
    return {name: pa.string() if _has_empty_struct(kind) else kind for name, kind in types.items()}


def _has_empty_struct(kind: pa.DataType) -> bool:
    """Whether a type has a struct without fields (`{}` in all rows), which Parquet cannot store."""
    if pa.types.is_list(kind):
        return _has_empty_struct(kind.value_type)
    if not pa.types.is_struct(kind):
        return False
    return kind.num_fields == 0 or any(_has_empty_struct(field.type) for field in kind)


def _common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    if pa.binary() in (first, second):
        return pa.binary()
    try:
        schemas = [pa.schema([("column", kind)]) for kind in (first, second)]
        return pa.unify_schemas(schemas, promote_options="permissive").field("column").type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.string()


def _jsonl_rows(file: SourceFile, batch_rows: int) -> Iterator[list[dict[str, Any]]]:
    with _open(file) as source:
        lines: Iterable[bytes] = io.BufferedReader(source)
        rows: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            if line.strip():
                rows.append(_json_object(file, number, line))
            if len(rows) == batch_rows:
                yield rows
                rows = []
        if rows:
            yield rows


def _json_object(file: SourceFile, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line.decode("utf-8", errors="surrogateescape"))
    except (ValueError, RecursionError) as error:
        raise UnreadableFileError(f"{file.path}, line {number}, is not JSON: {error}.") from error
    if not isinstance(row, dict):
        raise UnreadableFileError(f"{file.path}, line {number}, is not a JSON object.")
    return row


def _json_column(values: list[Any], kind: pa.DataType | None) -> pa.Array:
    """JSON values as one Arrow column; if types do not mix, all but texts become JSON text."""
    if kind != pa.string():
        try:
            return pa.array(values, kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
            pass
    column = _text_column([_to_text(value) for value in values])
    return column if kind is None else column.cast(kind)


def _text_column(texts: list[str | None]) -> pa.Array:
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        return pa.array([None if text is None else _to_bytes(text) for text in texts], pa.binary())


def _to_bytes(text: str) -> bytes:
    """The bytes in the file; an escaped half of a surrogate pair is not valid UTF-8."""
    try:
        return text.encode("utf-8", errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", errors="surrogatepass")


def _is_unicode(name: str) -> bool:
    return name.encode("utf-8", errors="ignore").decode() == name


def _to_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)


_READERS = {"csv": _read_csv, "tsv": _read_csv, "jsonl": _read_jsonl}
