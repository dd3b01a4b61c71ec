"""Rows of Parquet files."""

from collections.abc import Iterator, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.data.files import SourceFile
from distlstm.data.opening import UnreadableFileError, opened

_BATCH_BYTES = 16 * 2**20
_BUFFER = 2**20  # bytes read ahead of each column
_NANOSECONDS = 1_000  # in a microsecond


def read_parquet(
    file: SourceFile,
    columns: Sequence[str] | None,
    batch_rows: int,
    row_groups: Sequence[int] | None,
) -> Iterator[pa.RecordBatch]:
    """Read column chunks as streams, so that only part of a large row group is in memory."""
    with opened(file) as source:
        parquet = pq.ParquetFile(
            source,
            page_checksum_verification=True,
            pre_buffer=False,
            buffer_size=_BUFFER,
            coerce_int96_timestamp_unit=_int96_unit(file),
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
