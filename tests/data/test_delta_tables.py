"""Delta tables, written by the deltalake library: their rows are those that the library reads."""

import json
import shutil
import struct
import sys
from base64 import b85encode
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, convert_to_deltalake, write_deltalake

from distlstm.data.corpus import CorpusSpec
from distlstm.data.delta_table import delta_table
from distlstm.data.files import SourceFile, find_files, snapshots_of
from distlstm.data.labelled import Columns
from distlstm.data.reading import count_rows, read_batches, read_schema
from distlstm.data.units import Size, cut_into_units
from distlstm.errors import UserError
from distlstm.reader_options import ReaderOptions

ROWS = pa.table(
    {
        "id": list(range(6)),
        "text": [f"text {i}" for i in range(6)],
        "where": ["a b", "50%/x", "天气"] * 2,
        "n": pa.array([1, None] * 3, pa.int32()),
    }
)


def rows_of(files: Sequence[SourceFile], columns: Sequence[str] | None = None) -> list[str]:
    batches = [batch for file in files for batch in read_batches(file, columns=columns)]
    return sorted(repr(row) for batch in batches for row in batch.to_pylist())


def library_rows(table: Path, version: int | None = None) -> list[str]:
    return sorted(map(repr, DeltaTable(table, version=version).to_pyarrow_table().to_pylist()))


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Partitioned, with a deleted row, an updated one, and a column that came later."""
    path = tmp_path / "in/a 100% table"
    path.parent.mkdir()
    write_deltalake(path, ROWS, partition_by=["where", "n"])
    DeltaTable(path).delete("id = 0")
    DeltaTable(path).update(updates={"text": "'updated'"}, predicate="id = 3")
    later = ROWS.append_column("score", pa.array([0.5] * 6))
    write_deltalake(path, later, mode="append", schema_mode="merge")
    return path


def test_the_rows_are_those_of_the_current_version(table: Path) -> None:
    files = find_files([str(table)])
    assert rows_of(files) == library_rows(table)
    assert len(rows_of(files)) == 11
    assert snapshots_of(files) == {str(table): "3"}
    assert read_schema(files[0]).field("n").type == pa.int32()
    assert sum(map(count_rows, files)) == 11
    assert rows_of(find_files([table.as_uri()])) == library_rows(table)


@pytest.mark.parametrize("version", range(4))
def test_an_earlier_version_is_read_as_it_was(table: Path, version: int) -> None:
    files = find_files([str(table)], ReaderOptions(snapshot=str(version)))
    assert rows_of(files) == library_rows(table, version)
    number: Any = version
    assert find_files([str(table)], ReaderOptions(snapshot=number)) == files


def test_columns_are_chosen_also_where_a_file_has_none_of_them(table: Path) -> None:
    files = find_files([str(table)])
    rows = rows_of(files, ["score", "where"])
    assert len(rows) == 11
    assert sum("None" in row for row in rows) == 5
    assert any("'where': '50%/x'" in row for row in rows)


def test_a_part_is_named_so_that_no_reader_takes_its_directory_for_a_column(table: Path) -> None:
    assert not any("=" in file.relative for file in find_files([str(table)]))


def test_partition_columns_have_their_types(tmp_path: Path) -> None:
    columns = {
        "text": ["a", "b"],
        "day": pa.array([date(2024, 2, 29), None]),
        "at": pa.array([datetime(1, 1, 1, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
        "ok": [True, False],
        "_id": pa.array([-(2**40), 7]),
    }
    write_deltalake(tmp_path / "t", pa.table(columns), partition_by=["day", "at", "ok", "_id"])
    files = find_files([str(tmp_path / "t")])
    assert rows_of(files) == library_rows(tmp_path / "t")
    assert read_schema(files[0]).field("at").type == pa.timestamp("us", "UTC")
    assert not any(part.startswith("_") for file in files for part in file.relative.split("/"))


def test_large_files_of_a_table_are_cut_by_row_groups(tmp_path: Path) -> None:
    source = tmp_path / "t"
    source.mkdir()
    table = pa.table({"text": [f"text {i}" for i in range(1_000)]})
    pq.write_table(table, source / "a.parquet", row_group_size=100, compression="none")
    convert_to_deltalake(source)
    units = cut_into_units(find_files([str(source)]), Size(3_000, 200))
    assert len(units) > 3
    texts = [
        text
        for unit in units
        for batch in read_batches(
            unit.file, columns=["text"], row_groups=unit.row_groups, rows=unit.rows
        )
        for text in batch.column(0).to_pylist()
    ]
    assert texts == table["text"].to_pylist()


def test_int96_timestamps_of_spark_keep_their_values(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    table = pa.table({"text": ["a"], "end": pa.array([datetime(9999, 12, 31)])})
    pq.write_table(table, tmp_path / "t/a.parquet", use_deprecated_int96_timestamps=True)
    convert_to_deltalake(tmp_path / "t")
    files = find_files([str(tmp_path / "t")])
    assert "datetime.datetime(9999, 12, 31, 0, 0" in rows_of(files)[0]


def test_new_fields_of_structs_are_null_in_older_files(tmp_path: Path) -> None:
    for value in ({"a": 1}, {"a": 2, "b": "x"}):
        rows = pa.table({"text": ["t"], "s": [value], "l": [[value]]})
        write_deltalake(tmp_path / "t", rows, mode="append", schema_mode="merge")
    assert rows_of(find_files([str(tmp_path / "t")])) == library_rows(tmp_path / "t")


@pytest.mark.parametrize("source", ["", "*", "**"])
def test_a_table_below_a_directory_is_read_as_a_table(table: Path, source: str) -> None:
    pq.write_table(pa.table({"text": ["plain"]}), table.parent / "plain.parquet")
    hidden = table.parent / "_old"
    shutil.copytree(table, hidden)
    files = find_files([str(table.parent / source)])
    assert rows_of([file for file in files if file.table]) == library_rows(table)
    assert [file.relative for file in files if not file.table] == ["plain.parquet"]
    assert all(file.relative.startswith("a 100% table/") for file in files if file.table)


@pytest.mark.parametrize(
    "source", ["*/*/*/*.parquet", "**/*.parquet", "a 100% table/w*", "a 100% table/where=a%20b"]
)
def test_a_path_that_leads_into_a_table_is_refused(table: Path, source: str) -> None:
    with pytest.raises(UserError, match="is a Delta table, and not all of its files are current"):
        find_files([str(table.parent / source)])


def test_a_single_file_of_a_table_is_refused(table: Path) -> None:
    file = next(table.rglob("*.parquet"))
    with pytest.raises(UserError, match="Give this directory as the input"):
        find_files([str(file)])


def test_a_pattern_that_does_not_match_a_table_leaves_it_out(table: Path) -> None:
    (table.parent / "a.csv").write_text("text\nx\n")
    assert [file.relative for file in find_files([f"{table.parent}/**/*.csv"])] == ["a.csv"]


def test_without_the_library_the_command_that_installs_it_is_named(
    table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "deltalake", None)
    with pytest.raises(UserError, match=r"is a Delta table\. .* pip install 'distlstm\[delta\]'"):
        find_files([str(table)])


def test_a_version_that_does_not_exist_is_refused(table: Path) -> None:
    for snapshot in ("4", "x", "-1"):
        with pytest.raises(UserError, match="newest version is 3"):
            find_files([str(table)], ReaderOptions(snapshot=snapshot))


def test_one_snapshot_is_not_for_two_tables(table: Path) -> None:
    shutil.copytree(table, table.parent / "b")
    with pytest.raises(UserError, match="--snapshot is for one table, and these are 2"):
        find_files([str(table.parent)], ReaderOptions(snapshot="1"))


def test_an_input_format_for_a_table_is_refused(table: Path) -> None:
    with pytest.raises(UserError, match="Leave out --input-format"):
        find_files([str(table)], ReaderOptions(format="parquet"))


def test_an_empty_or_broken_table_is_refused(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", ROWS.slice(0, 0))
    with pytest.raises(UserError, match="No data files"):
        find_files([str(tmp_path / "t")])
    (tmp_path / "u/_delta_log").mkdir(parents=True)
    with pytest.raises(UserError, match=r"Cannot read .*u, a Delta table: "):
        find_files([str(tmp_path / "u")])


def rewrite_log(table: Path, change: Any) -> None:
    """Let `change` edit each action of the table's only commit."""
    log = table / "_delta_log/00000000000000000000.json"
    actions = [json.loads(line) for line in log.read_text().splitlines()]
    for action in actions:
        change(action)
    log.write_text("\n".join(map(json.dumps, actions)))


def needs(action: dict[str, Any], feature: str) -> None:
    if "protocol" in action:
        action["protocol"] = {
            "minReaderVersion": 3,
            "minWriterVersion": 7,
            "readerFeatures": [feature],
            "writerFeatures": [feature],
        }


def deletion_vector(row: int) -> dict[str, Any]:
    """The deletion of one row, as the specification stores it in the log itself."""
    bitmap = struct.pack("<IIHHIH", 12346, 1, 0, 0, 16, row)
    content = struct.pack("<IQI", 1681511377, 1, 0) + bitmap
    padded = content + b"\0" * (-len(content) % 4)
    python = (
        b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"
    )
    z85 = b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
    text = b85encode(padded).translate(bytes.maketrans(python, z85)).decode()
    inline = {"storageType": "i", "pathOrInlineDv": text, "sizeInBytes": len(content)}
    return {**inline, "cardinality": 1}


def test_a_table_with_deletion_vectors_is_refused(tmp_path: Path) -> None:
    table = tmp_path / "t"
    write_deltalake(table, ROWS)

    def delete(action: dict[str, Any]) -> None:
        needs(action, "deletionVectors")
        if "add" in action:
            action["add"]["deletionVector"] = deletion_vector(2)

    rewrite_log(table, delete)
    with pytest.raises(UserError, match="it needs deletionVectors, which is not supported"):
        find_files([str(table)])


def test_a_table_that_may_have_deletion_vectors_but_has_none_is_read(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", ROWS)
    rewrite_log(tmp_path / "t", lambda action: needs(action, "deletionVectors"))
    assert len(rows_of(find_files([str(tmp_path / "t")]))) == 6


def test_a_table_with_mapped_columns_is_refused(tmp_path: Path) -> None:
    write_deltalake(tmp_path / "t", ROWS)

    def rename(action: dict[str, Any]) -> None:
        if "protocol" in action:
            action["protocol"] = {"minReaderVersion": 2, "minWriterVersion": 5}
        if "metaData" in action:
            action["metaData"]["configuration"] = {"delta.columnMapping.mode": "name"}

    rewrite_log(tmp_path / "t", rename)
    with pytest.raises(UserError, match=r"Cannot read .*/t, a Delta table: .*olumn"):
        find_files([str(tmp_path / "t")])


def test_the_snapshot_belongs_to_the_identity_of_a_training(table: Path) -> None:
    def identity(snapshot: str | None) -> dict[str, Any]:
        from distlstm.config import TextConfig

        spec = CorpusSpec.find(
            [str(table)],
            [],
            columns=Columns(),
            text=TextConfig(),
            validation_fraction=0.1,
            reader=ReaderOptions(snapshot=snapshot),
            on_note=lambda note: None,
        )
        return spec.identity | {"spec": spec.fingerprint}

    assert identity(None)["snapshots"] == {str(table): "3"}
    assert identity(None) == identity("3")
    assert identity(None)["data"] != identity("2")["data"]


def test_a_table_is_opened_once_for_all_its_files(table: Path) -> None:
    files = find_files([str(table)])
    before = delta_table.cache_info().misses
    rows_of(files)
    assert delta_table.cache_info().misses == before
