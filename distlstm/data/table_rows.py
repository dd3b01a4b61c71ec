"""Rows of a table's file, with the columns and types that the table has now."""

from collections.abc import Iterator, Sequence

import pyarrow as pa

from distlstm.data.delta_table import delta_table
from distlstm.data.files import SourceFile
from distlstm.data.iceberg_table import iceberg_rows, iceberg_table
from distlstm.data.lakehouse import TableSnapshot
from distlstm.data.opening import UnreadableFileError, unreadable
from distlstm.data.parquet_rows import read_parquet


def table_schema(file: SourceFile) -> pa.Schema:
    """The columns of the table that a file belongs to.

    Raises:
        UserError: the table cannot be read.
    """
    table = _table_of(file)
    return (delta_table if file.format == "delta" else iceberg_table)(table).schema


def read_table_file(
    file: SourceFile,
    columns: Sequence[str] | None,
    batch_rows: int,
    row_groups: Sequence[int] | None,
) -> Iterator[pa.RecordBatch]:
    """The rows of a file, those that are not deleted; see `reading.read_batches`.

    Raises:
        UserError: the table cannot be read, or one of its types has another value in the file.
    """
    schema = table_schema(file)
    wanted = [name for name in schema.names if columns is None or name in columns]
    if file.format == "delta":
        partitions = delta_table(_table_of(file)).partitions[file.path]
        stored = [name for name in wanted if name not in partitions]
        for batch in read_parquet(file, stored, batch_rows, row_groups):
            yield _as_in_table(batch, [schema.field(name) for name in wanted], partitions, file)
        return
    for batch in _iceberg_batches(file, wanted):
        for start in range(0, batch.num_rows, batch_rows):
            rows = batch.slice(start, batch_rows)
            yield _as_in_table(rows, [schema.field(name) for name in wanted], {}, file)


def _table_of(file: SourceFile) -> TableSnapshot:
    assert file.table is not None  # noqa: S101
    return file.table


def _iceberg_batches(file: SourceFile, columns: list[str]) -> Iterator[pa.RecordBatch]:
    try:
        yield from iceberg_rows(iceberg_table(_table_of(file)), file.path, columns)
    except (OSError, ValueError, NotImplementedError) as error:
        raise unreadable(file, error) from error


def _as_in_table(
    batch: pa.RecordBatch,
    fields: Sequence[pa.Field],
    partitions: dict[str, pa.Scalar],
    file: SourceFile,
) -> pa.RecordBatch:
    """The columns of the table: those of the partition, those of the file, and null for others."""
    arrays = []
    for field in fields:
        if field.name in partitions:
            arrays.append(pa.repeat(partitions[field.name], batch.num_rows))
        elif field.name in batch.schema.names:
            arrays.append(_cast(batch.column(field.name), field, file))
        else:
            arrays.append(pa.nulls(batch.num_rows, field.type))
    return pa.RecordBatch.from_arrays(arrays, names=[field.name for field in fields])


def _cast(column: pa.Array, field: pa.Field, file: SourceFile) -> pa.Array:
    try:
        return column.cast(field.type)
    except pa.ArrowException as error:
        raise UnreadableFileError(
            f"Column {field.name!r} of {file.path} is not {field.type}, as its table has it: "
            f"{error}."
        ) from error
