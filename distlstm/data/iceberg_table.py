"""An Iceberg table: its files and columns, and the rows of one file."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from distlstm.data.filesystem import open_filesystem
from distlstm.data.lakehouse import (
    ICEBERG_METADATA,
    ICEBERG_SCHEME,
    DataFile,
    TableSnapshot,
    library,
    no_snapshot,
    not_readable,
)
from distlstm.errors import UserError

_NUMBER = re.compile(r"v?(\d+)")


@dataclass(frozen=True)
class IcebergTable:
    """An Iceberg table at one snapshot."""

    table: TableSnapshot
    schema: pa.Schema
    files: tuple[DataFile, ...]
    loaded: Any
    """The library's table."""
    projected: Any
    """The library's schema, whose column ids find renamed columns in older files."""
    tasks: dict[str, Any]
    """By path of a file: the library's task to read it, with the files of its deleted rows."""


@lru_cache(maxsize=16)
def iceberg_table(table: TableSnapshot) -> IcebergTable:
    """The table at a snapshot that was found with `current_snapshot`, or was given.

    Raises:
        UserError: it cannot be read.
    """
    loaded = _load(table.uri)
    snapshot, _, schema_id = table.snapshot.partition(":")
    known = {str(s.snapshot_id): s for s in loaded.metadata.snapshots}
    if snapshot not in known or (schema_id and schema_id not in map(str, loaded.schemas())):
        raise no_snapshot(table, "iceberg", f"it has: {', '.join(known) or 'none'}")
    projected = loaded.schemas()[int(schema_id or _schema_id(known[snapshot], loaded))]
    try:
        scan = loaded.scan(snapshot_id=int(snapshot))
        found = {task.file.file_path: task for task in scan.plan_files()}
        schema = _arrow_schema(projected)
    except Exception as error:  # the library has several kinds, also of its own
        raise not_readable(table.uri, "iceberg", error) from error
    files = {path: _data_file(loaded.location(), found[path].file) for path in sorted(found)}
    return IcebergTable(
        table=table,
        schema=schema,
        files=tuple(files.values()),
        loaded=loaded,
        projected=projected,
        tasks={files[path].path: task for path, task in found.items()},
    )


def current_snapshot(uri: str) -> TableSnapshot | None:
    """The current snapshot; None if the table never had rows.

    Raises:
        UserError: the table cannot be read.
    """
    loaded = _load(uri)
    current = loaded.current_snapshot()
    if current is None:
        return None
    own, now = _schema_id(current, loaded), loaded.metadata.current_schema_id
    named = str(current.snapshot_id) if own == now else f"{current.snapshot_id}:{now}"
    return TableSnapshot(uri=uri, snapshot=named)


def _schema_id(snapshot: Any, loaded: Any) -> int:
    own = snapshot.schema_id
    return int(loaded.metadata.current_schema_id if own is None else own)


def iceberg_rows(opened: IcebergTable, path: str, columns: list[str]) -> Iterator[pa.RecordBatch]:
    """The rows of a file that are not deleted, with the columns that the table has now."""
    module = library("pyiceberg.io.pyarrow", uri=opened.table.uri, kind="iceberg")
    always = library("pyiceberg.expressions", uri=opened.table.uri, kind="iceberg").AlwaysTrue()
    io, tasks = opened.loaded.io, [opened.tasks[path]]
    scan = module.ArrowScan(opened.loaded.metadata, io, opened.projected.select(*columns), always)
    # The public method has all rows of a file in memory at once.
    deleted = module._read_all_delete_files(io, tasks)
    yield from scan._record_batches_from_scan_tasks_and_deletes(tasks, deleted)


def _newest_metadata(uri: str) -> str:
    """The metadata file with the highest number in a table's directory."""
    filesystem, directory = open_filesystem(uri)
    selector = pafs.FileSelector(f"{directory}/metadata")
    names = [info.base_name for info in filesystem.get_file_info(selector)]
    numbered = [(int(found[1]), name) for name in names if (found := _is_metadata(name))]
    highest = max(numbered)[0] if numbered else 0
    newest = sorted(name for number, name in numbered if number == highest)
    if len(newest) != 1:
        raise UserError(
            f"Cannot tell which file in {uri}/metadata is current. Name one as the input, or "
            "name the table by its catalog, as iceberg://CATALOG/NAMESPACE.TABLE."
        )
    return f"{uri.partition('?')[0].rstrip('/')}/metadata/{newest[0]}"


def _is_metadata(name: str) -> re.Match[str] | None:
    return _NUMBER.match(name) if name.endswith(ICEBERG_METADATA) else None


def _load(uri: str) -> Any:
    try:
        if uri.startswith(ICEBERG_SCHEME):
            catalog, _, name = uri.removeprefix(ICEBERG_SCHEME).partition("/")
            load = library("pyiceberg.catalog", uri=uri, kind="iceberg").load_catalog
            return load(catalog).load_table(name)
        static = library("pyiceberg.table", uri=uri, kind="iceberg").StaticTable
        return static.from_metadata(
            uri if uri.endswith(ICEBERG_METADATA) else _newest_metadata(uri)
        )
    except UserError:
        raise
    except Exception as error:
        raise not_readable(uri, "iceberg", error) from error


def _arrow_schema(projected: Any) -> pa.Schema:
    from pyiceberg.io.pyarrow import schema_to_pyarrow

    return schema_to_pyarrow(projected, include_field_ids=False)


def _data_file(location: str, file: Any) -> DataFile:
    path, root = file.file_path, location.rstrip("/") + "/"
    below = path.removeprefix(root) if path.startswith(root) else PurePosixPath(path).name
    return DataFile(
        path=path.removeprefix("file://") if path.startswith("file:///") else path,
        below=below,
        size=file.file_size_in_bytes,
        modified=0,
    )
