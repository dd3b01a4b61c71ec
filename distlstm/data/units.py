"""Cutting a corpus into units of work: a run of row groups of one file."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.data.files import SourceFile, open_filesystem
from distlstm.data.reading import unreadable

UNIT_BYTES = 8 * 2**20
"""Least input of a unit that a file is cut into; a row group, often 64-128 MB, is never cut."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """One piece of work: what one worker reads at a time, and what becomes one output part."""

    file: SourceFile
    row_groups: tuple[int, ...] | None = None
    """Row groups of a Parquet file; None is the whole file."""
    index: int = 0
    """This unit's place among those of its file, from 0."""
    num_units: int = 1
    """Units that its file was cut into."""


def cut_into_units(files: Iterable[SourceFile], *, unit_bytes: int = UNIT_BYTES) -> list[Unit]:
    """Units of about `unit_bytes` of input, in the order of the files.

    Only Parquet files larger than that are cut (at row groups); only their footers are read.

    Raises:
        UserError: a large Parquet file's footer cannot be read.
    """
    units: list[Unit] = []
    for file in files:
        if file.format != "parquet" or file.size <= unit_bytes:
            units.append(Unit(file=file))
        else:
            units.extend(_cut(file, unit_bytes))
    return units


def _cut(file: SourceFile, unit_bytes: int) -> list[Unit]:
    filesystem, path = open_filesystem(file.path)
    try:
        with filesystem.open_input_file(path) as source:
            footer = pq.read_metadata(source)
    except (pa.ArrowException, OSError) as error:
        raise unreadable(file, error) from error
    sizes = [_compressed_bytes(footer.row_group(i)) for i in range(footer.num_row_groups)]
    runs = _runs(sizes, unit_bytes)
    return [
        Unit(file=file, row_groups=tuple(run), index=index, num_units=len(runs))
        for index, run in enumerate(runs)
    ]


def _compressed_bytes(row_group: pq.RowGroupMetaData) -> int:
    return sum(row_group.column(i).total_compressed_size for i in range(row_group.num_columns))


def _runs(sizes: Sequence[int], limit: int) -> list[list[int]]:
    """Consecutive indices, grouped so that each group's sizes sum to `limit` or little more."""
    runs: list[list[int]] = []
    filled = limit
    for index, size in enumerate(sizes):
        if filled >= limit:
            runs.append([])
            filled = 0
        runs[-1].append(index)
        filled += size
    return runs


def group_small(units: Sequence[Unit], *, num_groups: int) -> list[list[Unit]]:
    """Consecutive units bundled so that a task gets about `UNIT_BYTES`.

    There are at least `num_groups` bundles where the units allow it, so that no worker idles.
    """
    total = sum(unit.file.size // unit.num_units for unit in units)
    limit = max(1, min(UNIT_BYTES, total // max(1, num_groups)))
    sizes = [unit.file.size // unit.num_units for unit in units]
    return [[units[i] for i in run] for run in _runs(sizes, limit)]
