"""Cuts files into units of work: row groups of one Parquet file, or a whole file.

The cuts do not depend on the number of workers, so a run that is resumed on another machine finds
the same units.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import compress, pairwise
from math import ceil

import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.data.files import SourceFile
from distlstm.data.filesystem import open_filesystem
from distlstm.data.opening import UnreadableFileError, unreadable

_LARGE_INPUT = 64 * 2**20
_COMPRESSION = 8
"""A file this many times smaller on disk than a unit is one unit; its footer is not read."""
_MOST_PIECES = 16
"""Most pieces of one row group: reading a piece decodes everything before it in the group."""
_FOOTERS_AT_ONCE = 16
"""An object store takes tens of milliseconds to answer, whatever else it is asked."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A piece of work, which one worker reads and which becomes one output part."""

    file: SourceFile
    row_groups: tuple[int, ...] | None = None
    """Row groups of a Parquet file; None is the whole file."""
    rows: tuple[int, int] | None = None
    """First row and the one after the last, within the unit's only row group; None is all."""
    index: int = 0
    """Index of this unit among the units of its file, from 0."""
    num_units: int = 1
    """Number of units of its file."""

    @property
    def num_bytes(self) -> int:
        """Its approximate share of the file on disk, in bytes."""
        return self.file.size // self.num_units


@dataclass(frozen=True)
class Size:
    """The size of one or several row groups, or the limit of a unit."""

    num_bytes: int
    num_rows: int

    def __add__(self, other: "Size") -> "Size":
        return Size(self.num_bytes + other.num_bytes, self.num_rows + other.num_rows)

    def fits(self, limit: "Size") -> bool:
        """Whether it is within a limit."""
        return self.num_bytes <= limit.num_bytes and self.num_rows <= limit.num_rows

    def pieces(self, limit: "Size") -> int:
        """Into how many pieces a row group of this size is cut."""
        wanted = ceil(max(self.num_bytes / limit.num_bytes, self.num_rows / limit.num_rows))
        return max(1, min(wanted, _MOST_PIECES, self.num_rows))


UNIT = Size(num_bytes=8 * 2**20, num_rows=32_768)
"""The limit of a unit, as far as row groups allow: decoded bytes, and rows.

A worker has one unit in memory, and loses one when it dies; on a CPU, a unit takes some ten
seconds."""
SMALL_UNIT = Size(num_bytes=4 * 2**20, num_rows=16_384)
"""The limit of a unit of a small input, so that all workers have something to do."""


def unit_limit(files: Sequence[SourceFile]) -> Size:
    """The limit of a unit, by the size of the whole input."""
    return UNIT if sum(file.size for file in files) >= _LARGE_INPUT else SMALL_UNIT


def cut_into_units(
    files: Sequence[SourceFile], limit: Size, *, keep_unreadable: bool = False
) -> list[Unit]:
    """The units of the files, in order.

    Only large Parquet files are cut: between row groups, and within row groups that are larger
    than a unit. Only the footers of these files are read, several at once. With `keep_unreadable`,
    a file whose footer cannot be read is one unit; who reads the unit meets the error again.

    Raises:
        UnreadableFileError: a large Parquet file's footer cannot be read.
    """
    is_large = [file.is_parquet and file.size > limit.num_bytes // _COMPRESSION for file in files]
    cut = partial(_cut_if_readable if keep_unreadable else _cut, limit=limit)
    with ThreadPoolExecutor(_FOOTERS_AT_ONCE) as threads:
        of_large = threads.map(cut, compress(files, is_large))
        return [
            unit
            for file, large in zip(files, is_large, strict=True)
            for unit in (next(of_large) if large else [Unit(file=file)])
        ]


def _cut_if_readable(file: SourceFile, limit: Size) -> list[Unit]:
    try:
        return _cut(file, limit)
    except UnreadableFileError:
        return [Unit(file=file)]


def _cut(file: SourceFile, limit: Size) -> list[Unit]:
    sizes = _row_group_sizes(file)
    units = [
        Unit(file=file, row_groups=tuple(run), rows=rows)
        for run in _runs_that_fit(sizes, limit)
        for rows in _row_ranges(sizes[run[0]], 1 if len(run) > 1 else sizes[run[0]].pieces(limit))
    ]
    if not units:
        return [Unit(file=file)]
    return [replace(unit, index=i, num_units=len(units)) for i, unit in enumerate(units)]


def _row_group_sizes(file: SourceFile) -> list[Size]:
    filesystem, path = open_filesystem(file.path)
    try:
        with filesystem.open_input_file(path) as source:
            footer = pq.read_metadata(source)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file, error) from error
    groups = map(footer.row_group, range(footer.num_row_groups))
    return [Size(group.total_byte_size, group.num_rows) for group in groups]


def _runs_that_fit(sizes: Sequence[Size], limit: Size) -> list[list[int]]:
    """Group consecutive row groups that fit into one unit; a larger one is alone."""
    runs: list[list[int]] = []
    filled = limit
    for index, size in enumerate(sizes):
        if runs and (filled + size).fits(limit):
            runs[-1].append(index)
            filled += size
        else:
            runs.append([index])
            filled = size
    return runs


def _row_ranges(size: Size, pieces: int) -> list[tuple[int, int] | None]:
    if pieces == 1:
        return [None]
    cuts = [size.num_rows * i // pieces for i in range(pieces + 1)]
    return list(pairwise(cuts))


def group_small(units: Sequence[Unit], *, num_groups: int) -> list[list[Unit]]:
    """Bundle consecutive units so that a task gets at most the bytes of one unit.

    If the units allow it, there are at least `num_groups` bundles, so that no worker is idle.
    """
    total = sum(unit.num_bytes for unit in units)
    limit = max(1, min(UNIT.num_bytes, total // max(1, num_groups)))
    bundles: list[list[Unit]] = []
    filled = 0
    for unit in units:
        if bundles and filled + unit.num_bytes <= limit:
            bundles[-1].append(unit)
            filled += unit.num_bytes
        else:
            bundles.append([unit])
            filled = unit.num_bytes
    return bundles
