"""Tests of distlstm.data.units."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlstm.data.files import SourceFile, find_files
from distlstm.data.units import UNIT_BYTES, Unit, cut_into_units, group_small
from distlstm.errors import UserError


def source(name: str, size: int) -> SourceFile:
    return SourceFile(
        path=f"/{name}", relative=name, size=size, modified=0, format="csv", compression=None
    )


def parquet(path: Path, num_groups: int) -> SourceFile:
    rows = pa.table({"text": [f"row {i} " * 5 for i in range(50 * num_groups)]})
    pq.write_table(rows, path, row_group_size=50, compression="none")
    (file,) = find_files([str(path)])
    return file


@pytest.mark.parametrize("num_groups", [1, 2, 13])
@pytest.mark.parametrize("share", [0.01, 0.34, 0.99])
def test_units_of_a_file_cover_its_row_groups_once_in_order(
    tmp_path: Path, num_groups: int, share: float
) -> None:
    file = parquet(tmp_path / "a.parquet", num_groups)
    units = cut_into_units([file], unit_bytes=int(file.size * share))
    assert [group for unit in units for group in unit.row_groups or ()] == list(range(num_groups))
    assert [unit.index for unit in units] == list(range(len(units)))
    assert {unit.num_units for unit in units} == {len(units)}
    assert all(unit.row_groups for unit in units)


def test_smaller_units_are_more_and_a_row_group_is_never_cut(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", 8)
    counts = [len(cut_into_units([file], unit_bytes=b)) for b in (1, file.size // 4, file.size)]
    assert counts[0] == 8
    assert 3 <= counts[1] <= 4
    assert counts[2] == 1


def test_a_small_file_and_a_file_without_row_groups_are_one_unit_each(tmp_path: Path) -> None:
    small, csv = parquet(tmp_path / "a.parquet", 3), source("b.csv", 10 * UNIT_BYTES)
    assert cut_into_units([csv, small]) == [Unit(file=csv), Unit(file=small)]
    assert cut_into_units([]) == []


def test_a_large_file_that_is_no_parquet_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"text\n" * 100)
    files = find_files([str(tmp_path)])
    with pytest.raises(UserError, match=r"a\.parquet as parquet"):
        cut_into_units(files, unit_bytes=10)


@settings(max_examples=60, deadline=None)
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
