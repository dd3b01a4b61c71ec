"""Bounds the decoded size of rows: a dictionary can make a small file many times larger."""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distlstm.text.columns import is_list

SLICE_BYTES = 16 * 2**20
"""Most decoded bytes of a slice of rows, unless a single row is larger."""

_Row = TypeVar("_Row")


def in_batches(
    rows: Iterable[_Row], size: Callable[[_Row], int], most: int
) -> Iterator[list[_Row]]:
    """Lists of at most `most` consecutive rows, which end once they reach `SLICE_BYTES`."""
    batch: list[_Row] = []
    filled = 0
    for row in rows:
        batch.append(row)
        filled += size(row)
        if len(batch) == most or filled >= SLICE_BYTES:
            yield batch
            batch, filled = [], 0
    if batch:
        yield batch


def row_sizes(column: pa.Array) -> np.ndarray:
    """The decoded size of each row of a column in bytes, about (float64, [rows])."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        sizes = row_sizes(column.dictionary)
        indices = column.indices.fill_null(0).to_numpy(zero_copy_only=False)
        return sizes[indices] if len(sizes) else np.zeros(len(column))
    if pa.types.is_struct(kind):
        return sum(map(row_sizes, column.flatten()), np.zeros(len(column)))
    if pa.types.is_map(kind) or is_list(kind):
        return _sums(column)
    try:
        return np.asarray(pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False))
    except pa.ArrowNotImplementedError:  # values of one width, and views
        return np.full(len(column), column.nbytes / max(1, len(column)))


def _sums(column: pa.Array) -> np.ndarray:
    """The sizes of the rows of a list or map column."""
    if pa.types.is_map(column.type):
        entries = column.offsets
        used = slice(entries[0].as_py(), entries[-1].as_py())
        inner = row_sizes(column.keys[used]) + row_sizes(column.items[used])
        lengths = np.diff(entries.to_numpy())
    else:
        inner = row_sizes(pc.list_flatten(column))
        found = pc.fill_null(pc.list_value_length(column), 0)
        lengths = found.to_numpy(zero_copy_only=False).astype(np.int64)
    before = np.concatenate([np.zeros(1), np.cumsum(inner)])
    return np.diff(before[np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])])


def cut_by_size(sizes: np.ndarray, limit: float = SLICE_BYTES) -> Iterator[tuple[int, int]]:
    """Cut rows of these sizes (float64, [rows]) into slices, at least one row each.

    Yields the first row and the one after the last.
    """
    ends, start = np.cumsum(sizes), 0
    while start < len(sizes):
        before = ends[start - 1] if start else 0
        end = int(np.searchsorted(ends, before + limit, side="right"))
        yield start, max(end, start + 1)
        start = max(end, start + 1)


def dictionaries(column: pa.Array) -> Iterator[pa.Array]:
    """The dictionaries at any depth of a column."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        yield column.dictionary
    elif pa.types.is_map(kind):
        yield from dictionaries(column.keys)
        yield from dictionaries(column.items)
    elif is_list(kind):
        yield from dictionaries(column.values)
    elif pa.types.is_struct(kind):
        for child in column.flatten():
            yield from dictionaries(child)


def decoded(column: pa.Array, kind: pa.DataType) -> pa.Array:
    """A column, of which parts at any depth are dictionary-encoded, as one of this type."""
    try:
        return column.cast(kind)
    except pa.ArrowNotImplementedError:  # a dictionary of views
        return column.dictionary_decode().cast(kind)
