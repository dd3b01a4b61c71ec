"""Rows of Parquet files, in batches that are bounded by their decoded size.

Column chunks are read as streams. How many rows fit into a batch follows from their encoded size,
except with dictionaries, of which one long value can stand in every row. So the longest value of
each dictionary is looked at first. Where these could make a batch too large, the rows are read with
their dictionaries, measured, cut, and decoded slice by slice.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.data.decoded_size import SLICE_BYTES, cut_by_size, decoded, dictionaries, row_sizes
from distlstm.data.files import SourceFile
from distlstm.data.opening import UnreadableFileError, opened

_BATCH_LIMIT = 128 * 2**20
"""Decoded bytes of a batch that are not measured before they are decoded."""
_LARGEST_ROW = 256 * 2**20
"""Most decoded bytes of a row."""
_BUFFER = 2**20  # bytes read ahead of each column
_NANOSECONDS = 1_000  # in a microsecond


def read_parquet(
    file: SourceFile,
    columns: Sequence[str] | None,
    batch_rows: int,
    row_groups: Sequence[int] | None,
) -> Iterator[pa.RecordBatch]:
    """The rows of a file; see `reading.read_batches`.

    Raises:
        UnreadableFileError: the file is damaged, or a row is too large; names column and row.
    """
    with opened(file) as source:
        unit = _int96_unit(file)
        parquet = _parquet(source, unit)
        schema, footer = parquet.schema_arrow, parquet.metadata
        wanted = [name for name in schema.names if columns is None or name in columns]
        groups = list(range(footer.num_row_groups) if row_groups is None else row_groups)
        num_rows = min(batch_rows, _rows_that_fit(footer, groups))
        is_large = any(_can_exceed(source, footer, group, wanted, num_rows) for group in groups)
        if is_large:
            parquet = _parquet(source, unit, footer, read_dictionary=_dictionary_paths(footer))
        first = sum(footer.row_group(group).num_rows for group in range(min(groups, default=0)))
        for batch in parquet.iter_batches(
            batch_size=num_rows, row_groups=groups, columns=wanted, use_threads=False
        ):
            if is_large or batch.nbytes > _BATCH_LIMIT:
                yield from _slices(file, batch, schema, first)
            else:
                yield batch
            first += batch.num_rows


def _parquet(
    source: Any,
    int96_unit: str | None,
    footer: pq.FileMetaData | None = None,
    read_dictionary: Sequence[str] = (),
) -> pq.ParquetFile:
    return pq.ParquetFile(
        source,
        metadata=footer,
        page_checksum_verification=True,
        pre_buffer=False,
        buffer_size=_BUFFER,
        coerce_int96_timestamp_unit=int96_unit,
        read_dictionary=list(read_dictionary),
    )


def _rows_that_fit(footer: pq.FileMetaData, groups: Sequence[int]) -> int:
    """How many rows of encoded bytes make a batch, in the row group with the longest rows."""
    sizes = (footer.row_group(group) for group in groups)
    longest = max((g.total_byte_size / max(1, g.num_rows) for g in sizes), default=0)
    return max(1, int(SLICE_BYTES / max(1, longest)))


def _dictionary_chunks(group: pq.RowGroupMetaData) -> list[pq.ColumnChunkMetaData]:
    chunks = map(group.column, range(group.num_columns))
    return [c for c in chunks if c.physical_type == "BYTE_ARRAY" and c.has_dictionary_page]


def _dictionary_paths(footer: pq.FileMetaData) -> list[str]:
    groups = map(footer.row_group, range(footer.num_row_groups))
    paths = (c.path_in_schema for group in groups for c in _dictionary_chunks(group))
    return list(dict.fromkeys(paths))


def _can_exceed(
    source: Any, footer: pq.FileMetaData, index: int, wanted: Sequence[str], num_rows: int
) -> bool:
    """Whether so many rows of a row group can be much larger than their encoded size."""
    group = footer.row_group(index)
    chunks = [
        chunk
        for chunk in _dictionary_chunks(group)
        if chunk.path_in_schema.partition(".")[0] in wanted
    ]
    rows = min(num_rows, group.num_rows)
    num_values = [rows * chunk.num_values / max(1, group.num_rows) for chunk in chunks]
    longest = [chunk.total_uncompressed_size for chunk in chunks]
    if np.dot(num_values, longest) <= _BATCH_LIMIT:
        return False
    found = [_longest_value(source, footer, index, chunk.path_in_schema) for chunk in chunks]
    return bool(np.dot(num_values, np.minimum(longest, found)) > _BATCH_LIMIT)


def _longest_value(source: Any, footer: pq.FileMetaData, group: int, path: str) -> float:
    """The size of the longest value in the dictionary of a column chunk; infinite if unknown."""
    rows = _parquet(source, None, footer, read_dictionary=[path]).iter_batches(
        batch_size=1, row_groups=[group], columns=[path], use_threads=False
    )
    found = [d for column in next(rows).columns for d in dictionaries(column) if len(d)]
    return max((float(row_sizes(d).max()) for d in found), default=np.inf)


def _slices(
    file: SourceFile, batch: pa.RecordBatch, schema: pa.Schema, first: int
) -> Iterator[pa.RecordBatch]:
    """The rows of a batch, decoded, in slices that are bounded by their decoded size."""
    kinds = [schema.field(name).type for name in batch.schema.names]
    sizes = np.stack([row_sizes(column) for column in batch.columns])
    for start, end in cut_by_size(sizes.sum(0)):
        if sizes[:, start].sum() > _LARGEST_ROW:
            column = int(sizes[:, start].argmax())
            raise UnreadableFileError(
                f"Row {first + start:,} (from 0) of {file.path} has a value of "
                f"{sizes[column, start] / 2**20:,.0f} MiB in column "
                f"{batch.schema.names[column]!r}; "
                f"a row may have {_LARGEST_ROW / 2**20:g} MiB."
            )
        columns = [
            decoded(column.slice(start, end - start), kind)
            for column, kind in zip(batch.columns, kinds, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def slice_rows(batches: Iterator[pa.RecordBatch], first: int, end: int) -> Iterator[pa.RecordBatch]:
    """The rows from number `first` to before number `end`."""
    start = 0
    for batch in batches:
        low, high = max(first - start, 0), min(end - start, batch.num_rows)
        if low < high:
            yield batch.slice(low, high - low)
        start += batch.num_rows
        if start >= end:
            return


@lru_cache(maxsize=64)
def _int96_unit(file: SourceFile) -> str | None:
    """The unit in which INT96 timestamps are read without a change; None is Arrow's own.

    Arrow's unit is the nanosecond, which reaches from 1677 to 2262. Values outside wrap around:
    9999-12-31, the open end of Spark and SQL Server, would become 1816-03-30. Microseconds hold
    them, unless a value has digits below a microsecond.

    Raises:
        UnreadableFileError: neither unit holds all values of a column.
    """
    with opened(file) as source:
        columns = sorted(
            {
                column.path.partition(".")[0]
                for column in pq.read_metadata(source).schema
                if column.physical_type == "INT96"
            }
        )
    for name in columns:
        far, fine = _int96_needs(file, name)
        if far and fine:
            raise UnreadableFileError(
                f"Column {name!r} of {file.path} has INT96 timestamps outside of 1677 to 2262, and "
                "others with digits below a microsecond; no Arrow type holds both. Leave it out "
                "with --columns, or write it again with microseconds."
            )
        if far:
            return "us"
    return None


def _int96_needs(file: SourceFile, name: str) -> tuple[bool, bool]:
    """Whether values lie outside of what nanoseconds reach, and whether any has digits below us."""
    far = fine = False
    with opened(file) as source, opened(file) as again:
        nanoseconds = pq.ParquetFile(source)
        microseconds = pq.ParquetFile(again, coerce_int96_timestamp_unit="us")
        both = (
            parquet.iter_batches(columns=[name], use_threads=False)
            for parquet in (nanoseconds, microseconds)
        )
        for batches in zip(*both, strict=True):
            for ns, us in zip(*(_timestamps(batch.column(0)) for batch in batches), strict=True):
                with np.errstate(over="ignore"):  # what wrapped around wraps back
                    fine |= bool((ns != us * _NANOSECONDS).any())
                far |= bool((np.abs(us) > np.iinfo(np.int64).max // _NANOSECONDS).any())
    return far, fine


def _timestamps(column: pa.Array) -> Iterator[np.ndarray]:
    """The timestamps at any depth of a column, nulls left out (int64)."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        yield column.drop_null().cast(pa.int64()).to_numpy()
    elif pa.types.is_map(kind):
        yield from _timestamps(column.keys)
        yield from _timestamps(column.items)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _timestamps(column.flatten())
    elif pa.types.is_struct(kind):
        for child in column.flatten():
            yield from _timestamps(child)
