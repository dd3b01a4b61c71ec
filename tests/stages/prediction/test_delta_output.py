"""The Delta table over the parts: its columns, and what each commit has."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from distlstm.data.files import find_files
from distlstm.errors import RunError, UserError
from distlstm.stages.prediction.delta_output import check_input, commit, delta_type, one_schema
from distlstm.stages.prediction.parts import Part
from distlstm.storage import LocalStorage
from tests.stages.small_model import settings


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        (pa.large_string(), pa.string()),
        (pa.dictionary(pa.int32(), pa.string()), pa.string()),
        (pa.timestamp("ms", "Asia/Shanghai"), pa.timestamp("us", "UTC")),
        (pa.timestamp("us"), pa.timestamp("us")),
        (pa.date64(), pa.date32()),
        (pa.decimal256(38, 2), pa.decimal128(38, 2)),
        (pa.large_list(pa.float32()), pa.list_(pa.float32())),
        (pa.map_(pa.string(), pa.int8()), pa.map_(pa.string(), pa.int8())),
        (pa.struct([("a", pa.string_view())]), pa.struct([("a", pa.string())])),
        (pa.struct([("a", pa.uint8())]), None),
        (pa.list_(pa.duration("s")), None),
        *(
            (kind, None)
            for kind in (
                *(pa.uint8(), pa.uint64(), pa.time32("s"), pa.time64("us"), pa.duration("us")),
                *(pa.null(), pa.float16(), pa.binary(4), pa.decimal256(50, 2), pa.timestamp("ns")),
            )
        ),
    ],
)
def test_a_column_has_a_delta_type_or_none(kind: pa.DataType, stored: pa.DataType | None) -> None:
    assert delta_type(kind) == stored


SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string())])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ([("id", pa.int64()), ("text", pa.int32())], "'text' is string in a and int32 in b"),
        ([("id", pa.int64())], "'text' is string in a and missing in b"),
        ([*SCHEMA, ("n", pa.int8())], "'n' is missing in a and int8 in b"),
        ([*SCHEMA, ("n", pa.uint8())], "'n' of b has type uint8, which Delta tables do not have"),
        ([*SCHEMA, ("ID", pa.int64())], "'id' and 'ID' of b differ only in case"),
    ],
)
def test_files_that_are_no_one_table_are_refused_with_the_column(
    other: list[Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        one_schema([("a", SCHEMA), ("b", pa.schema(other))])


def test_the_order_of_columns_does_not_matter() -> None:
    assert one_schema([("a", SCHEMA), ("b", pa.schema([*reversed(list(SCHEMA))]))]) == SCHEMA


def test_the_input_is_checked_for_the_columns_that_are_kept(tmp_path: Path) -> None:
    for name, kind in (("a", pa.int8()), ("b", pa.uint8())):
        table = pa.table({"text": ["x"], "n": pa.array([1], kind)})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    files = find_files([str(tmp_path)])
    check_input(files, settings(columns=("text",)))
    with pytest.raises(UserError, match=r"Column 'n' of .*b\.parquet has type uint8"):
        check_input(files, settings())


def write(output: Path, name: str, ids: Sequence[int], **columns: Any) -> Part:
    """Write a part; of the same ids, the file is the same."""
    path = output / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": pa.array(ids, pa.int64()), **columns}), path)
    return Part(name=name, input="", unit={}, settings={}, rows_in=len(ids), rows_out=len(ids))


def rows_of(output: Path, version: int | None = None) -> list[Mapping[str, Any]]:
    rows = DeltaTable(output, version=version).to_pyarrow_table().to_pylist()
    return sorted(rows, key=lambda row: str(row["id"]))


def test_the_parts_are_the_files_of_the_table(tmp_path: Path) -> None:
    names = ["a.parquet", "2026/odd 100% name+天.parquet"]
    parts = [write(tmp_path, name, [i]) for i, name in enumerate(names)]
    assert commit(LocalStorage(tmp_path), parts) == 0
    assert rows_of(tmp_path) == [{"id": 0}, {"id": 1}]
    assert sorted(pl.read_delta(str(tmp_path))["id"]) == [0, 1]
    assert commit(LocalStorage(tmp_path), parts) is None
    assert DeltaTable(tmp_path).version() == 0
    assert len(list(tmp_path.rglob("*.parquet"))) == 2


def test_a_commit_has_new_changed_and_removed_parts(tmp_path: Path) -> None:
    parts = {name: write(tmp_path, name, [i]) for i, name in enumerate(["a", "b", "c"])}
    assert commit(LocalStorage(tmp_path), list(parts.values())) == 0
    parts["b"] = write(tmp_path, "b", [10, 11])
    parts["d"] = write(tmp_path, "d", [3])
    (tmp_path / "c").unlink()
    del parts["c"]
    assert commit(LocalStorage(tmp_path), list(parts.values())) == 1
    assert [row["id"] for row in rows_of(tmp_path)] == [0, 10, 11, 3]
    assert commit(LocalStorage(tmp_path), list(parts.values())) is None


def test_hive_directories_are_the_partition_columns(tmp_path: Path) -> None:
    values = {"de": "de", "a b%2Fc": "a b/c", "__HIVE_DEFAULT_PARTITION__": None}
    parts = [write(tmp_path, f"country={name}/a.parquet", [i]) for i, name in enumerate(values)]
    commit(LocalStorage(tmp_path), parts)
    assert DeltaTable(tmp_path).metadata().partition_columns == ["country"]
    assert [row["country"] for row in rows_of(tmp_path)] == list(values.values())
    assert pl.read_delta(str(tmp_path)).sort("id")["country"].to_list() == list(values.values())
    parts.append(write(tmp_path, "country=fr/b.parquet", [3]))
    assert commit(LocalStorage(tmp_path), parts) == 1
    assert rows_of(tmp_path)[3] == {"id": 3, "country": "fr"}
    parts.append(write(tmp_path, "city=x/b.parquet", [4]))
    with pytest.raises(RunError, match=r"partition columns \['country'\] and .* \['city'\]"):
        commit(LocalStorage(tmp_path), parts)


def test_parts_of_different_types_are_kept_but_refused(tmp_path: Path) -> None:
    parts = [write(tmp_path, "a", [1], n=[1]), write(tmp_path, "b", [1], n=[0.5])]
    with pytest.raises(RunError, match=r"parts are kept, .*'n' is int64 in a and double in b"):
        commit(LocalStorage(tmp_path), parts)
    assert not (tmp_path / "_delta_log").exists()


def test_commits_of_others_stay(tmp_path: Path) -> None:
    parts = [write(tmp_path, "a", [1, 2]), write(tmp_path, "b", [3])]
    commit(LocalStorage(tmp_path), parts)
    DeltaTable(tmp_path).delete("id = 2")
    assert commit(LocalStorage(tmp_path), parts) is None
    parts.append(write(tmp_path, "c", [4]))
    assert commit(LocalStorage(tmp_path), parts) == 2
    assert [row["id"] for row in rows_of(tmp_path)] == [1, 3, 4]
    parts[1] = write(tmp_path, "b", [30, 31])
    assert commit(LocalStorage(tmp_path), parts) == 3
    assert [row["id"] for row in rows_of(tmp_path)] == [1, 30, 31, 4]
    parts[0] = write(tmp_path, "a", [1, 2, 5])
    with pytest.raises(RunError, match="another program has rewritten rows of a in"):
        commit(LocalStorage(tmp_path), parts)


def test_a_table_of_another_program_is_refused(tmp_path: Path) -> None:
    from deltalake import write_deltalake

    part = write(tmp_path, "a", [1])
    write_deltalake(tmp_path, pa.table({"id": [1]}), mode="append")
    with pytest.raises(RunError, match="Delta table that this command did not write"):
        commit(LocalStorage(tmp_path), [part])
