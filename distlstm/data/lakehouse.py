"""Tables of the lakehouse: how one is told from a directory of files, and which files it has."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import PurePosixPath
from typing import Any, Literal

import pyarrow.fs as pafs

from distlstm.errors import UserError

TableKind = Literal["delta", "iceberg"]
DELTA_LOG = "_delta_log"
ICEBERG_SCHEME = "iceberg://"
ICEBERG_METADATA = ".metadata.json"
TABLE_DIRECTORIES = (DELTA_LOG, "metadata")
"""Directories of which a table has one."""
TABLE_NAMES: dict[TableKind, str] = {"delta": "a Delta table", "iceberg": "an Iceberg table"}


@dataclass(frozen=True, kw_only=True)
class TableSnapshot:
    """A table as it was after one of its commits."""

    uri: str
    """Its directory, or the address of its metadata or catalog entry."""
    snapshot: str
    """The version of a Delta table; the snapshot id of an Iceberg table, followed by `:` and a
    schema id if its columns are not those of the snapshot."""


@dataclass(frozen=True, kw_only=True)
class DataFile:
    """A file with rows of a table."""

    path: str
    """Absolute path, or a URI."""
    below: str
    """Path below the table."""
    size: int
    """Bytes."""
    modified: int
    """Time of the last change, in nanoseconds; 0 if the table does not record it."""

    @property
    def relative(self) -> str:
        """`below`, without directories that a reader takes for Hive partitions or for hidden.

        The rows have the partition columns, with their types.
        """
        parts = PurePosixPath(self.below).parts
        return str(PurePosixPath(*(part.replace("=", "-").lstrip("_.") or "x" for part in parts)))


def table_kind(filesystem: pafs.FileSystem, children: Iterable[pafs.FileInfo]) -> TableKind | None:
    """Whether a directory with these children is a table."""
    directories = {c.base_name: c.path for c in children if c.type == pafs.FileType.Directory}
    if DELTA_LOG in directories:
        return "delta"
    if "metadata" in directories:
        selector = pafs.FileSelector(directories["metadata"])
        if any(f.path.endswith(ICEBERG_METADATA) for f in filesystem.get_file_info(selector)):
            return "iceberg"
    return None


def table_roots(files: Iterable[pafs.FileInfo]) -> dict[str, TableKind]:
    """The directories that are tables, from the paths of all files below a directory."""
    roots: dict[str, TableKind] = {}
    for path in (PurePosixPath(info.path) for info in files):
        if DELTA_LOG in path.parts[:-1]:
            roots[str(PurePosixPath(*path.parts[: path.parts.index(DELTA_LOG)]))] = "delta"
        elif path.parent.name == "metadata" and path.name.endswith(ICEBERG_METADATA):
            roots[str(path.parent.parent)] = "iceberg"
    return roots


def library(name: str, *, uri: str, kind: TableKind) -> Any:
    """A module of the library that reads these tables.

    Raises:
        UserError: it is not installed.
    """
    try:
        return import_module(name)
    except ImportError as error:
        raise UserError(
            f"{uri} is {TABLE_NAMES[kind]}. To read such tables: pip install 'distlstm[{kind}]'"
        ) from error


def not_readable(uri: str, kind: TableKind, reason: object) -> UserError:
    """The error for a table that its library cannot read."""
    first = str(reason).strip().split("\n")[0].rstrip(".")
    return UserError(f"Cannot read {uri}, {TABLE_NAMES[kind]}: {first}.")


def no_snapshot(table: TableSnapshot, kind: TableKind, existing: str) -> UserError:
    """The error for a snapshot that a table does not have."""
    return UserError(
        f"{table.uri}, {TABLE_NAMES[kind]}, has no snapshot {table.snapshot!r}; {existing}."
    )
