"""A Delta table: its files, columns and partition values, from its log."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from distlstm.data.lakehouse import DataFile, TableSnapshot, library, no_snapshot, not_readable
from distlstm.errors import UserError
from distlstm.storage.connection import table_options

_READABLE = {
    "deletionVectors",  # as long as no file has one
    "timestampNtz",
    "typeWidening",
    "typeWidening-preview",
    "v2Checkpoint",
    "vacuumProtocolCheck",
}
"""Features of tables whose rows are those of their Parquet files, cast to the table's types."""
_MILLISECOND = 1_000_000
_PARTITION = "partition."


@dataclass(frozen=True)
class DeltaTable:
    """A Delta table at one version."""

    table: TableSnapshot
    schema: pa.Schema
    files: tuple[DataFile, ...]
    partitions: dict[str, dict[str, pa.Scalar]]
    """By path of a file: the values of its partition columns, which its rows do not have."""


@lru_cache(maxsize=16)
def delta_table(table: TableSnapshot) -> DeltaTable:
    """The table at a version that was found with `current_version`, or was given.

    Raises:
        UserError: it cannot be read.
    """
    opened = _open(table.uri)
    try:
        opened.load_as_version(_version(table, opened.version()))
        _refuse_unreadable(opened)
        schema = pa.schema(opened.schema().to_arrow())
        actions = pa.table(opened.get_add_actions(flatten=True)).sort_by("path")
    except Exception as error:  # the library has several kinds, also of its own
        if isinstance(error, UserError):
            raise
        raise not_readable(table.uri, "delta", error) from error
    files = tuple(_data_file(table.uri, row) for row in actions.to_pylist())
    return DeltaTable(table, schema, files, _partitions(actions, files, schema))


def current_version(uri: str) -> TableSnapshot:
    """The newest version.

    Raises:
        UserError: the table cannot be read.
    """
    return TableSnapshot(uri=uri, snapshot=str(_open(uri).version()))


def _open(uri: str) -> Any:
    deltalake = library("deltalake", uri=uri, kind="delta")
    try:
        return deltalake.DeltaTable(uri.partition("?")[0], storage_options=table_options(uri))
    except Exception as error:
        raise not_readable(uri, "delta", error) from error


def _version(table: TableSnapshot, newest: int) -> int:
    if not (table.snapshot.isdecimal() and int(table.snapshot) <= newest):
        raise no_snapshot(table, "delta", f"its newest version is {newest}")
    return int(table.snapshot)


def _refuse_unreadable(opened: Any) -> None:
    """Raise a ValueError if rows of the table are not simply those of its files."""
    features = set(opened.protocol().reader_features or ())
    unreadable = features - _READABLE
    mapping = opened.metadata().configuration.get("delta.columnMapping.mode", "none")
    if mapping != "none":
        unreadable.add("columnMapping")
    if "deletionVectors" in features and any(
        pa.record_batch(batch).num_rows for batch in opened.deletion_vectors()
    ):
        unreadable.add("deletionVectors")
    if unreadable:
        raise ValueError(
            f"it needs {', '.join(sorted(unreadable))}, which is not supported. Write it again "
            "without, for example as Parquet files"
        )


def _data_file(uri: str, action: dict[str, Any]) -> DataFile:
    below = unquote(action["path"])
    is_elsewhere = "://" in below or below.startswith("/")  # in a shallow clone
    return DataFile(
        path=below if is_elsewhere else _join(uri, action["path"]),
        below=below.rpartition("/")[2] if is_elsewhere else below,
        size=action["size_bytes"],
        modified=action["modification_time"] * _MILLISECOND,
    )


def _join(uri: str, encoded: str) -> str:
    """The address of a file, whose path in the log is percent-encoded."""
    address, mark, query = uri.partition("?")
    if "://" not in uri:
        return f"{uri.rstrip('/')}/{unquote(encoded)}"
    return f"{address.rstrip('/')}/{encoded}{mark}{query}"


def _partitions(
    actions: pa.Table, files: tuple[DataFile, ...], schema: pa.Schema
) -> dict[str, dict[str, pa.Scalar]]:
    names = [
        name.removeprefix(_PARTITION)
        for name in actions.column_names
        if name.startswith(_PARTITION)
    ]
    columns = {
        name: actions.column(_PARTITION + name).cast(schema.field(name).type) for name in names
    }
    return {
        file.path: {name: column[row] for name, column in columns.items()}
        for row, file in enumerate(files)
    }
