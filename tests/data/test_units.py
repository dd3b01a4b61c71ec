"""Tests of distlstm.data.units."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlstm.data.files import SourceFile, find_files
from distlstm.data.reading import read_batches
from distlstm.data.units import (
    SMALL_UNIT,
    UNIT,
    Size,
    Unit,
    cut_into_units,
    group_small,
    unit_limit,
)
from distlstm.errors import UserError

UNIT_BYTES = UNIT.num_bytes


def source(name: str, size: int) -> SourceFile:
    return SourceFile(
        path=f"/{name}", relative=name, size=size, modified=0, format="csv", compression=None
    )


def parquet(path: Path, group_rows: list[int]) -> SourceFile:
    schema, start = pa.schema([("id", pa.int64()), ("text", pa.string())]), 0
    with pq.ParquetWriter(path, schema) as writer:
        for count in group_rows:
            ids = list(range(start, start + count))
            writer.write_table(pa.table([ids, [f"row {i}" for i in ids]], schema=schema))
            start += count
    (file,) = find_files([str(path)])
    return file


@pytest.mark.parametrize(
    ("group_rows", "num_rows", "expected"),
    [
        ([50], 100, [(0,)]),
        ([50, 50, 50], 100, [(0, 1), (2,)]),
        ([50, 120, 10, 10], 100, [(0,), (1,), (1,), (2, 3)]),
        ([1] * 1000, 400, [tuple(range(400)), tuple(range(400, 800)), tuple(range(800, 1000))]),
        ([97], 1, [(0,)] * 16),
        ([3], 1, [(0,)] * 3),
        ([], 10, [None]),
    ],
)
def test_units_hold_runs_of_row_groups_and_pieces_of_large_ones(
    tmp_path: Path,
    group_rows: list[int],
    num_rows: int,
    expected: list[tuple[int, ...] | None],
) -> None:
    file = parquet(tmp_path / "a.parquet", group_rows)
    many_bytes = 8 * (file.size - 1)  # the most at which a file of this size is cut at all
    units = cut_into_units([file], Size(many_bytes, num_rows))
    assert [unit.row_groups for unit in units] == expected


@settings(max_examples=30)
@given(
    group_rows=st.lists(st.integers(1, 60), max_size=6),
    num_rows=st.integers(1, 80),
    num_bytes=st.integers(1, 2_000),
)
def test_units_hold_every_row_once_in_order(
    tmp_path_factory: pytest.TempPathFactory, group_rows: list[int], num_rows: int, num_bytes: int
) -> None:
    file = parquet(tmp_path_factory.mktemp("units") / "a.parquet", group_rows)
    units = cut_into_units([file], Size(num_bytes, num_rows))
    assert [unit.index for unit in units] == list(range(len(units)))
    assert {unit.num_units for unit in units} == {len(units)}
    ids = [
        row_id
        for unit in units
        for batch in read_batches(
            unit.file, row_groups=unit.row_groups, rows=unit.rows, batch_rows=7
        )
        for row_id in batch["id"].to_pylist()
    ]
    assert ids == list(range(sum(group_rows)))


def test_small_files_and_those_that_are_no_parquet_stay_whole(tmp_path: Path) -> None:
    small, csv = parquet(tmp_path / "a.parquet", [3, 3]), source("b.csv", 10 * UNIT_BYTES)
    assert cut_into_units([csv, small], UNIT) == [Unit(file=csv), Unit(file=small)]
    assert cut_into_units([], UNIT) == []


def test_a_large_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"text\n" * 100)
    files = find_files([str(tmp_path)])
    with pytest.raises(UserError, match=r"a\.parquet as parquet"):
        cut_into_units(files, Size(8, 8))


def test_a_file_that_cannot_be_cut_can_stay_whole_among_the_others(tmp_path: Path) -> None:
    for name in "acd":
        parquet(tmp_path / f"{name}.parquet", [20, 20])
    (tmp_path / "b.parquet").write_bytes(b"text\n" * 100)
    files = find_files([str(tmp_path)])
    units = cut_into_units(files, Size(2_000, 20), keep_unreadable=True)
    expected = [("a", 0), ("a", 1), ("b", 0), ("c", 0), ("c", 1), ("d", 0), ("d", 1)]
    assert [(unit.file.relative.removesuffix(".parquet"), unit.index) for unit in units] == expected


@pytest.mark.parametrize(
    ("sizes", "limit"), [([], SMALL_UNIT), ([2**20] * 63, SMALL_UNIT), ([2**20] * 64, UNIT)]
)
def test_the_units_of_a_small_input_are_small(sizes: list[int], limit: Size) -> None:
    assert unit_limit([source(f"{i}.csv", size) for i, size in enumerate(sizes)]) == limit


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 2 * UNIT_BYTES) | st.integers(0, 99), max_size=30),
    st.integers(1, 12),
)
def test_bundles_hold_every_unit_once_in_order_and_none_is_needlessly_large(
    sizes: list[int], num_groups: int
) -> None:
    units = [Unit(file=source(f"{i}.csv", size)) for i, size in enumerate(sizes)]
    bundles = group_small(units, num_groups=num_groups)
    assert [unit for bundle in bundles for unit in bundle] == units
    assert all(bundles)
    for bundle in bundles:
        assert sum(unit.file.size for unit in bundle[:-1]) < UNIT_BYTES


@pytest.mark.parametrize(("num_units", "num_groups"), [(100, 4), (5, 8), (8, 8), (1, 3), (9, 0)])
def test_there_is_a_bundle_for_every_worker_where_there_are_units(
    num_units: int, num_groups: int
) -> None:
    units = [Unit(file=source(f"{i}.csv", 100)) for i in range(num_units)]
    assert len(group_small(units, num_groups=num_groups)) >= min(num_units, num_groups)


def test_units_of_a_cut_file_count_by_their_share_of_it() -> None:
    file = source("a.parquet", 4 * UNIT_BYTES)
    units = [Unit(file=file, row_groups=(i,), index=i, num_units=16) for i in range(16)]
    assert [len(bundle) for bundle in group_small(units, num_groups=1)] == [4, 4, 4, 4]
