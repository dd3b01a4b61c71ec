"""Cutting files into units of work: row groups of one Parquet file, or a whole file.

How a file is cut does not depend on the workers at hand, so that a run that is taken up again on
another machine finds the same units.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import ceil

import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.data.files import SourceFile, open_filesystem
from distlstm.data.reading import unreadable

_LARGE_INPUT = 64 * 2**20
_COMPRESSION = 8
"""A file that is smaller on disk than a unit by this is one unit; its footer is not read."""
_MOST_PIECES = 16
"""Of one row group. To reach a piece, what stands before it in the row group is decoded too."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One piece of work: what one worker reads at a time, and what becomes one output part."""

    file: SourceFile
    row_groups: tuple[int, ...] | None = None
    """Row groups of a Parquet file; None is the whole file."""
    rows: tuple[int, int] | None = None
    """First row and the one after the last, within the unit's only row group; None is all."""
    index: int = 0
    """This unit's place among those of its file, from 0."""
    num_units: int = 1
    """Units that its file was cut into."""

    @property
    def num_bytes(self) -> int:
        """About its share of the file, on disk."""
        return self.file.size // self.num_units


@dataclass(frozen=True)
class Size:
    """Of a row group, several, or the most that a unit may hold."""

    num_bytes: int
    num_rows: int

    def __add__(self, other: "Size") -> "Size":
        return Size(self.num_bytes + other.num_bytes, self.num_rows + other.num_rows)

    def fits(self, limit: "Size") -> bool:
        """Whether it is within a limit."""
        return self.num_bytes <= limit.num_bytes and self.num_rows <= limit.num_rows

    def pieces(self, limit: "Size") -> int:
        """How many pieces a row group of this size is cut into."""
        wanted = ceil(max(self.num_bytes / limit.num_bytes, self.num_rows / limit.num_rows))
        return max(1, min(wanted, _MOST_PIECES, self.num_rows))


UNIT = Size(num_bytes=8 * 2**20, num_rows=32_768)
"""A unit at the most, as far as row groups allow: decoded bytes, and rows.

A worker holds one whole, and loses one when it dies; on a CPU it is some ten seconds of work."""
SMALL_UNIT = Size(num_bytes=4 * 2**20, num_rows=16_384)
"""Likewise where the whole input is small, so that all workers have something to do."""


def unit_limit(files: Sequence[SourceFile]) -> Size:
    """How large the units of an input are best at the most."""
    return UNIT if sum(file.size for file in files) >= _LARGE_INPUT else SMALL_UNIT


def cut_into_units(files: Iterable[SourceFile], limit: Size) -> list[Unit]:
    """Units of the files, in order.

    Only large Parquet files are cut: between row groups, and within those that are larger than a
    unit. Of these files the footers are read, of the others nothing.

    Raises:
        UserError: a large Parquet file's footer cannot be read.
    """
    units: list[Unit] = []
    for file in files:
        if file.format != "parquet" or file.size <= limit.num_bytes // _COMPRESSION:
            units.append(Unit(file=file))
        else:
            units.extend(_cut(file, limit))
    return units


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
    """Consecutive row groups that fit a unit together; one that fits none is alone."""
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
    """Consecutive units bundled so that a task gets a unit's bytes at the most.

    There are at least `num_groups` bundles where the units allow it, so that no worker idles.
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
