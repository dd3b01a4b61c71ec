"""Iceberg tables, written by pyiceberg: their rows are those that the library reads."""

import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat
from pyiceberg.table import FileScanTask
from pyiceberg.types import DoubleType

from distlstm.data.files import SourceFile, files_fingerprint, find_files, snapshots_of
from distlstm.data.iceberg_table import iceberg_table
from distlstm.data.reading import read_batches, read_schema
from distlstm.errors import UserError
from distlstm.reader_options import ReaderOptions

ROWS = pa.table(
    {
        "id": pa.array(range(6), pa.int64()),
        "text": [f"text {i}" for i in range(6)],
        "where": ["a b", "天气"] * 3,
    }
)


def rows_of(files: Sequence[SourceFile], columns: Sequence[str] | None = None) -> list[str]:
    batches = [batch for file in files for batch in read_batches(file, columns=columns)]
    return sorted(repr(row) for batch in batches for row in batch.to_pylist())


def library_rows(table: Any, snapshot: int | None = None) -> list[str]:
    return sorted(map(repr, table.scan(snapshot_id=snapshot).to_arrow().to_pylist()))


@pytest.fixture
def catalog(tmp_path: Path) -> SqlCatalog:
    warehouse = tmp_path / "a warehouse"
    made = SqlCatalog("c", uri=f"sqlite:///{tmp_path}/c.db", warehouse=f"file://{warehouse}")
    made.create_namespace("shop")
    return made


@pytest.fixture
def table(catalog: SqlCatalog) -> Any:
    """Partitioned, with a deleted row, an updated one, a renamed column and one that came later."""
    made = catalog.create_table("shop.reviews", schema=ROWS.schema)
    with made.update_spec() as spec:
        spec.add_identity("where")
    made.append(ROWS)
    made.delete("id == 1")
    made.overwrite(ROWS.slice(3, 1).set_column(1, "text", [["updated"]]), "id == 3")
    with made.update_schema() as schema:
        schema.rename_column("text", "review")
    with made.update_schema() as schema:
        schema.add_column("score", DoubleType())
    return made


def directory(table: Any) -> str:
    return str(table.location().removeprefix("file://"))


def test_the_rows_are_those_of_the_current_snapshot(table: Any) -> None:
    files = find_files([directory(table)])
    assert rows_of(files) == library_rows(table)
    assert len(rows_of(files)) == 5
    assert any("'review': 'updated'" in row for row in rows_of(files))
    assert read_schema(files[0]).names == ["id", "review", "where", "score"]
    assert not any("=" in file.relative for file in files)


def test_a_column_that_no_file_has_is_null(table: Any) -> None:
    assert rows_of(find_files([directory(table)]), ["score"]) == ["{'score': None}"] * 5


def test_a_metadata_file_names_the_table_as_it_was_then(table: Any) -> None:
    files = find_files([table.metadata_location])
    assert rows_of(files) == library_rows(table)
    path = table.metadata_location.removeprefix("file://")
    assert rows_of(find_files([path])) == library_rows(table)


def test_earlier_snapshots_are_read_with_the_columns_that_they_had(table: Any) -> None:
    for snapshot in table.metadata.snapshots:
        wanted = ReaderOptions(snapshot=str(snapshot.snapshot_id))
        found = rows_of(find_files([directory(table)], wanted))
        assert found == library_rows(table, snapshot.snapshot_id)
        assert all("'text'" in row for row in found)


def test_a_renamed_column_makes_another_snapshot_name(table: Any) -> None:
    (own,) = snapshots_of(find_files([directory(table)])).values()
    with table.update_schema() as schema:
        schema.rename_column("review", "body")
    (new,) = snapshots_of(find_files([directory(table)])).values()
    assert new != own
    again = find_files([directory(table)], ReaderOptions(snapshot=own))
    assert read_schema(again[0]).names[1] == "review"


def test_rows_deleted_by_position_do_not_come_back(table: Any, tmp_path: Path) -> None:
    files = find_files([directory(table)])
    file = max(files, key=lambda file: len(rows_of([file])))
    first = next(iter(read_batches(file))).to_pylist()
    opened = iceberg_table(file.table)  # type: ignore[arg-type]
    task = opened.tasks[file.path]
    positions = pa.table({"file_path": [task.file.file_path], "pos": pa.array([0], pa.int64())})
    pq.write_table(positions, tmp_path / "deleted.parquet")
    deleted = DataFile.from_args(
        content=DataFileContent.POSITION_DELETES,
        file_path=str(tmp_path / "deleted.parquet"),
        file_format=FileFormat.PARQUET,
    )
    opened.tasks[file.path] = FileScanTask(task.file, delete_files={deleted})
    assert next(iter(read_batches(file))).to_pylist() == first[1:]


def test_a_table_below_a_directory_is_read_as_a_table(table: Any, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1]}), tmp_path / "a warehouse/plain.parquet")
    files = find_files([str(tmp_path / "a warehouse")])
    assert rows_of([file for file in files if file.table]) == library_rows(table)
    assert [file.relative for file in files if not file.table] == ["plain.parquet"]


def test_a_path_that_leads_into_a_table_is_refused(table: Any) -> None:
    for source in ("data", "data/*/*.parquet", "**/*.parquet"):
        with pytest.raises(UserError, match="is an Iceberg table"):
            find_files([f"{directory(table)}/{source}"])


def test_a_directory_named_metadata_makes_no_table(tmp_path: Path) -> None:
    (tmp_path / "metadata").mkdir()
    (tmp_path / "metadata/a.json").write_text('{"text": "x"}\n')
    assert [file.format for file in find_files([str(tmp_path)])] == ["jsonl"]


def test_a_table_is_found_in_the_catalog_of_the_users_configuration(
    table: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pyiceberg import catalog
    from pyiceberg.utils.config import Config

    monkeypatch.setenv("PYICEBERG_CATALOG__LOCAL__TYPE", "sql")
    monkeypatch.setenv("PYICEBERG_CATALOG__LOCAL__URI", f"sqlite:///{tmp_path}/c.db")
    monkeypatch.setattr(catalog, "_ENV_CONFIG", Config())
    with pytest.raises(UserError, match=r"Cannot read iceberg://local/shop\.none"):
        find_files(["iceberg://local/shop.none"])
    # the configured catalog has another name than the one that made the table
    moved = SqlCatalog("local", uri=f"sqlite:///{tmp_path}/c.db")
    moved.create_namespace("shop")
    moved.register_table("shop.reviews", table.metadata_location)
    files = find_files(["iceberg://local/shop.reviews"])
    assert rows_of(files) == library_rows(table)
    assert list(snapshots_of(files)) == ["iceberg://local/shop.reviews"]


def test_two_newest_metadata_files_are_refused(table: Any) -> None:
    newest = Path(table.metadata_location.removeprefix("file://"))
    shutil.copy(newest, newest.with_name(newest.name.replace("-", "-0", 1)))
    with pytest.raises(UserError, match=r"Cannot tell which file in .*/metadata is current"):
        find_files([directory(table)])


def test_a_snapshot_that_does_not_exist_is_refused(table: Any) -> None:
    for snapshot in ("5", "x", f"{table.current_snapshot().snapshot_id}:99"):
        with pytest.raises(UserError, match="has no snapshot"):
            find_files([directory(table)], ReaderOptions(snapshot=snapshot))


def test_an_empty_table_is_refused(catalog: SqlCatalog) -> None:
    made = catalog.create_table("shop.none", schema=ROWS.schema)
    with pytest.raises(UserError, match="No data files"):
        find_files([directory(made)])
    with pytest.raises(UserError, match="No data files"):
        find_files([made.metadata_location])


def test_without_the_library_the_command_that_installs_it_is_named(
    table: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("pyiceberg")]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"pip install 'distlstm\[iceberg\]'"):
        find_files([directory(table)])


def test_the_fingerprint_of_files_changes_with_the_snapshot_alone(table: Any) -> None:
    (own,) = snapshots_of(find_files([directory(table)])).values()
    bare = ReaderOptions(snapshot=own.partition(":")[0])
    files = [find_files([directory(table)]), find_files([directory(table)], bare)]
    assert [f.path for f in files[0]] == [f.path for f in files[1]]
    assert files_fingerprint(files[0]) != files_fingerprint(files[1])
