"""Rows of Parquet files, in batches that are bounded by their decoded size.

Column chunks are read as streams. How many rows fit into a batch follows from the footer, except
with dictionaries, of which one long value can stand in every row. So the longest value of each
dictionary is looked at first. Where a few of these could make a batch too large, batches have fewer
rows. Where many could, the rows are read with their dictionaries, measured, cut, and decoded slice
by slice.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.data.decoded_size import SLICE_BYTES, cut_by_size, decoded, dictionaries, row_sizes
from distlstm.data.files import SourceFile
from distlstm.data.opening import UnreadableFileError, opened

LARGEST_ROW = 64 * 2**20
"""Most decoded bytes of a row.

A prediction worker takes some 16 times as much memory, since the Parquet reader, the trimming, the
search for equal texts and the Parquet writer each make copies.
"""
_BATCH_LIMIT = 128 * 2**20
"""Decoded bytes of a batch that are not measured before they are decoded."""
_FEW_ROWS = 4
"""Batches are made at most so many times shorter to fit; else dictionaries are kept, to measure."""
_WIDTHS = {
    "BOOLEAN": 1,
    "INT32": 4,
    "FLOAT": 4,
    "BYTE_ARRAY": 4,
    "INT64": 8,
    "DOUBLE": 8,
    "INT96": 8,
}
"""Decoded bytes of a value; of a text, those of its offset."""
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
        first = sum(footer.row_group(group).num_rows for group in range(min(groups, default=0)))
        chunks = {group: _chunks(footer, group, wanted) for group in groups}
        rows = min([batch_rows, *(_rows_that_fit(chunks[group]) for group in groups)])
        sure = min([rows, *(_rows_of_any_values(source, chunks[group], rows) for group in groups)])
        keeps_dictionaries = sure * _FEW_ROWS < rows
        if keeps_dictionaries:
            parquet = _parquet(source, unit, footer, read_dictionary=_dictionary_paths(footer))
        for batch in parquet.iter_batches(
            batch_size=rows if keeps_dictionaries else sure,
            row_groups=groups,
            columns=wanted,
            use_threads=False,
        ):
            if sure < rows or batch.nbytes > LARGEST_ROW:
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


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """What the footer says about a column chunk."""

    footer: pq.FileMetaData
    group: int
    path: str
    num_rows: int
    num_values: int
    is_repeated: bool
    """Whether a row can have many values."""
    has_dictionary: bool
    """Whether it has a dictionary of texts."""
    encoded_bytes: int
    decoded_bytes: int
    """The least that it can take."""


def _chunks(footer: pq.FileMetaData, index: int, wanted: Sequence[str]) -> list[_Chunk]:
    """The column chunks of a row group."""
    group = footer.row_group(index)
    found = []
    for place in range(group.num_columns):
        chunk, column = group.column(place), footer.schema.column(place)
        if chunk.path_in_schema.partition(".")[0] not in wanted:
            continue
        width = _WIDTHS.get(chunk.physical_type, column.length)
        found.append(
            _Chunk(
                footer=footer,
                group=index,
                path=chunk.path_in_schema,
                num_rows=group.num_rows,
                num_values=chunk.num_values,
                is_repeated=column.max_repetition_level > 0,
                has_dictionary=_has_dictionary(chunk),
                encoded_bytes=chunk.total_uncompressed_size,
                decoded_bytes=max(chunk.total_uncompressed_size, chunk.num_values * width),
            )
        )
    return found


def _rows_that_fit(chunks: Sequence[_Chunk]) -> int:
    """How many rows of a row group make a batch, if each text is stored as often as it occurs."""
    num_rows = max([1, *(chunk.num_rows for chunk in chunks)])
    return max(1, SLICE_BYTES * num_rows // max(1, sum(chunk.decoded_bytes for chunk in chunks)))


def _rows_of_any_values(source: Any, chunks: Sequence[_Chunk], rows: int) -> int:
    """How many of these rows make a batch that is not too large, whatever values they have.

    The longest values of the dictionaries are read only if necessary.
    """
    chunks = [chunk for chunk in chunks if chunk.has_dictionary]
    fitting = _fitting(chunks, [chunk.encoded_bytes for chunk in chunks], rows)
    if fitting < rows:
        fitting = _fitting(chunks, [_longest_value(source, chunk) for chunk in chunks], rows)
    return fitting


def _fitting(chunks: Sequence[_Chunk], longest: Sequence[float], rows: int) -> int:
    """How many rows fit; as many as the row group has count as `rows`."""
    pairs = list(zip(chunks, longest, strict=True))
    at_once = sum(chunk.num_values * size for chunk, size in pairs if chunk.is_repeated)
    a_row = sum(size for chunk, size in pairs if not chunk.is_repeated)
    num_rows = min([rows, *(chunk.num_rows for chunk in chunks)])
    if at_once + a_row * num_rows <= _BATCH_LIMIT:
        return rows
    return int(max(0, _BATCH_LIMIT - at_once) / max(1, a_row))


def _has_dictionary(chunk: pq.ColumnChunkMetaData) -> bool:
    return bool(chunk.physical_type == "BYTE_ARRAY" and chunk.has_dictionary_page)


def _dictionary_paths(footer: pq.FileMetaData) -> list[str]:
    groups = map(footer.row_group, range(footer.num_row_groups))
    chunks = (group.column(place) for group in groups for place in range(group.num_columns))
    return list(dict.fromkeys(c.path_in_schema for c in chunks if _has_dictionary(c)))


def _longest_value(source: Any, chunk: _Chunk) -> float:
    """The size of the longest value in the dictionary of a column chunk; if unknown, any size."""
    parquet = _parquet(source, None, chunk.footer, read_dictionary=[chunk.path])
    rows = parquet.iter_batches(
        batch_size=1, row_groups=[chunk.group], columns=[chunk.path], use_threads=False
    )
    found = [d for column in next(rows).columns for d in dictionaries(column) if len(d)]
    return max((float(row_sizes(d).max()) for d in found), default=chunk.encoded_bytes)


def _slices(
    file: SourceFile, batch: pa.RecordBatch, schema: pa.Schema, first: int
) -> Iterator[pa.RecordBatch]:
    """The rows of a batch, decoded, in slices that are bounded by their decoded size."""
    kinds = [schema.field(name).type for name in batch.schema.names]
    sizes = np.stack([row_sizes(column) for column in batch.columns])
    for start, end in cut_by_size(sizes.sum(0)):
        if sizes[:, start].sum() > LARGEST_ROW:
            column = int(sizes[:, start].argmax())
            raise UnreadableFileError(
                f"Row {first + start:,} (from 0) of {file.path} has a value of "
                f"{sizes[column, start] / 2**20:,.0f} MiB in column "
                f"{batch.schema.names[column]!r}; "
                f"a row may have {LARGEST_ROW / 2**20:g} MiB."
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
