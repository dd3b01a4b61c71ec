"""Reads files as Arrow record batches, with every value as it is in the file.

CSV columns are strings ("007" stays "007"); JSON lines keep their JSON types. Text that is not
UTF-8 does not stop the reading: its column is binary, and `text.columns` makes the text null.
"""

from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.data.csv_rows import csv_header, read_csv
from distlstm.data.fasttext_rows import fasttext_schema, read_fasttext
from distlstm.data.files import SourceFile
from distlstm.data.json_rows import json_names, read_jsonl
from distlstm.data.opening import check_columns, opened
from distlstm.data.parquet_rows import read_parquet, slice_rows
from distlstm.data.table_rows import read_table_file, table_schema

BATCH_ROWS = 16_384


def read_schema(file: SourceFile, *, until: Sequence[str] | None = None) -> pa.Schema:
    """The columns of a file, partition columns last.

    Parquet files and tables state their types: CSV columns count as string, JSON lines columns as
    null. A key may come late in JSON lines: these are read to their end, or until all columns named
    in `until` were seen.
    """
    schema = read_own_schema(file, until=until)
    for name in file.partitions:
        schema = schema if name in schema.names else schema.append(pa.field(name, pa.string()))
    return schema


def read_own_schema(file: SourceFile, *, until: Sequence[str] | None = None) -> pa.Schema:
    """`read_schema` without the partition columns that are not in the file itself."""
    if file.table is not None:
        return table_schema(file)
    if file.format == "parquet":
        with opened(file) as source:
            return pq.read_schema(source)
    if file.format == "jsonl":
        return pa.schema([(name, pa.null()) for name in json_names(file, until)])
    if file.format == "fasttext":
        return fasttext_schema(file)
    return pa.schema([(name, pa.string()) for name in csv_header(file)[0]])


def count_rows(file: SourceFile) -> int:
    """Number of rows of a Parquet file, from its footer.

    Raises:
        UnreadableFileError: the file is damaged.
    """
    with opened(file) as source:
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
        columns: the columns to read, also Hive partition columns; None: those in the file itself,
            or in its table.
        row_groups: the row groups of a Parquet file to read; None: all.
        rows: the first row to read in these row groups, and the one after the last; None: all.
        batch_rows: most rows of a batch.
        one_type: give a column the same type in all batches even if the file does not state types;
            CSV and JSON lines are then read twice. Always so if `columns` is None.

    Raises:
        UserError: a column is missing, or the file does not have the format of its suffix.
    """
    if columns is not None:
        check_columns(file, read_schema(file, until=columns), columns)
    if file.format == "parquet" or file.table is not None:
        read = read_parquet if file.table is None else read_table_file
        batches = read(file, columns, batch_rows, row_groups)
        batches = batches if rows is None else slice_rows(batches, *rows)
    else:
        one_type = one_type or columns is None
        batches = _READERS[file.format](file, columns, batch_rows, one_type)
    for batch in batches:
        yield batch if columns is None else _select(batch, file, columns)


def _select(batch: pa.RecordBatch, file: SourceFile, columns: Sequence[str]) -> pa.RecordBatch:
    """The requested columns; a JSON lines column that is absent from these rows is null."""
    arrays = [
        batch.column(name)
        if name in batch.schema.names
        else pa.array([file.partitions.get(name)] * batch.num_rows, pa.string())
        for name in columns
    ]
    return pa.RecordBatch.from_arrays(arrays, names=list(columns))


_READERS = {"csv": read_csv, "tsv": read_csv, "jsonl": read_jsonl, "fasttext": read_fasttext}
