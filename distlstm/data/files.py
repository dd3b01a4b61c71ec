"""Finds the files of DATA and INPUT arguments, on any file system that pyarrow supports."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote

from distlstm.data.delta_table import current_version, delta_table
from distlstm.data.file_search import (
    WILDCARD,
    Found,
    Search,
    is_hidden,
    matches_above,
    path_below,
    real_path,
)
from distlstm.data.filesystem import HUB_SCHEME, open_filesystem
from distlstm.data.formats import SUPPORTED, compression_of
from distlstm.data.iceberg_table import current_snapshot, iceberg_table
from distlstm.data.lakehouse import (
    ICEBERG_METADATA,
    ICEBERG_SCHEME,
    TABLE_NAMES,
    DataFile,
    TableKind,
    TableSnapshot,
)
from distlstm.errors import UserError
from distlstm.reader_options import DETECT, ReaderOptions
from distlstm.storage import is_object_uri, parse_uri

_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_IDENTIFYING = ("path", "relative", "size", "modified", "format", "compression")
_STANDARD_INPUT = ("-", "/dev/stdin")
OnNote = Callable[[str], None]
"""Called with sentences about the files of a source."""


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file of a corpus, with its metadata: a changed file compares unequal."""

    path: str
    """Absolute path, or a URI."""
    relative: str
    """Path below the directory or glob that was given; an output mirrors it."""
    size: int
    """Bytes."""
    modified: int
    """Time of the last change, in nanoseconds."""
    format: str
    """`parquet`, `csv`, `tsv`, `jsonl` or `fasttext`; `delta` or `iceberg` of a table's file."""
    compression: str | None
    """`gzip`, `zstd`, `bz2`, `xz` or None: of the whole file, not that inside Parquet."""
    reader: ReaderOptions = DETECT
    table: TableSnapshot | None = None
    """The table that the file belongs to."""

    @property
    def is_parquet(self) -> bool:
        """Whether its rows are exactly those of a Parquet file."""
        return self.format in ("parquet", "delta")

    @property
    def partitions(self) -> dict[str, str | None]:
        """Hive partition columns, from directories named `column=value`, percent-decoded."""
        return hive_partitions(self.relative)


def hive_partitions(relative: str) -> dict[str, str | None]:
    """The partition columns of a file, from its path below the input or the output."""
    pairs = [part.partition("=") for part in PurePosixPath(relative).parts[:-1]]
    return {
        unquote(name): None if value == _NULL_PARTITION else unquote(value)
        for name, separator, value in pairs
        if separator and name
    }


def files_fingerprint(files: Sequence[SourceFile]) -> str:
    """A digest that changes with the path, size, time or table of any file."""
    return digest(
        [
            {name: getattr(file, name) for name in _IDENTIFYING}
            | ({} if file.table is None else {"snapshot": file.table.snapshot})
            for file in files
        ]
    )


def snapshots_of(files: Iterable[SourceFile]) -> dict[str, str]:
    """The snapshot of each table that files belong to, by the table's address."""
    tables = {file.table for file in files if file.table is not None}
    return {table.uri: table.snapshot for table in sorted(tables, key=lambda table: table.uri)}


def digest(value: object) -> str:
    """A short digest of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def has_changed(file: SourceFile) -> bool:
    """Whether the size or the time of a file has changed since it was found."""
    if file.table is not None:
        return False  # a table writes new files
    filesystem, path = open_filesystem(file.path)
    info = filesystem.get_file_info(path)
    return (info.size, info.mtime_ns or 0) != (file.size, file.modified)


def _ignore(note: str) -> None:
    """Nobody reads the note."""


def find_files(
    sources: Sequence[str], reader: ReaderOptions = DETECT, *, on_note: OnNote = _ignore
) -> list[SourceFile]:
    """The data files under paths, directories, globs and URIs, each once, sorted by path.

    Names that begin with `_` or `.` are skipped, as in Spark and Arrow. Symbolic links are
    followed; of several paths to one file, one without a link is taken. `on_note` gets a sentence
    about the files of a source that are passed over.

    Raises:
        UserError: there are no files, or the format of a file that was given is unknown.
    """
    named: dict[str, SourceFile] = {}
    for source in sources:
        named |= {file.path: file for file in _find(source, reader, on_note)}
    real, once = _real_paths(named), dict[str, str]()
    for path in sorted(named, key=lambda path: (path != real[path], len(path), path)):
        once.setdefault(real[path], path)
    found = [named[path] for path in sorted(once.values())]
    tables = snapshots_of(found)
    if reader.snapshot is not None and len(tables) > 1:
        raise UserError(
            f"--snapshot is for one table, and these are {len(tables)}: {', '.join(tables)}."
        )
    return found


def would_find(source: str, path: str) -> bool:
    """Whether a source finds the data files that are, or come to be, under a path or URI."""
    source = absolute(source)
    if is_object_uri(source) != is_object_uri(path) or ("://" in source) != ("://" in path):
        return False
    parts, wanted = _parts_of(source), _parts_of(real_path(path))
    first = next((i for i, part in enumerate(parts) if WILDCARD.search(part)), len(parts))
    root = parts[:first]
    if "://" not in source:
        root = _parts_of(real_path(str(PurePosixPath(*root))))
    below = (*wanted[len(root) :], "part.parquet")
    if wanted[: len(root)] != root or any(map(is_hidden, below)):
        return False
    return first == len(parts) or matches_above(below, parts[first:])


def _parts_of(path: str) -> tuple[str, ...]:
    """The parts of a path, or of a URI: its scheme, its bucket, and those of the key."""
    if not is_object_uri(path):
        return PurePosixPath(path).parts
    uri = parse_uri(path)
    return uri.scheme, uri.bucket, *PurePosixPath(uri.key).parts


def _real_paths(paths: Iterable[str]) -> dict[str, str]:
    """By path. Links are rare and directories few, so neither is asked for more than needed."""
    directories: dict[str, str] = {}
    real = {}
    for path in paths:
        directory, name = os.path.split(path)
        if "://" in path or Path(path).is_symlink():
            real[path] = real_path(path)
            continue
        if directory not in directories:
            directories[directory] = real_path(directory)
        real[path] = str(Path(directories[directory], name))
    return real


def absolute(source: str) -> str:
    """A URI as it is, or the absolute path of a local file, so that each file has one name."""
    if source.startswith("file:///"):
        source = unquote(source.removeprefix("file://"))
    return source if "://" in source else os.path.normpath(Path(source).expanduser().absolute())


def _find(source: str, reader: ReaderOptions, on_note: OnNote) -> list[SourceFile]:
    if source in _STANDARD_INPUT:
        raise UserError(
            "Standard input cannot be read again after an interruption; write it to a file first. "
            "(`distlstm predict` reads lines of text from it.)"
        )
    source = absolute(source)
    if source.startswith(ICEBERG_SCHEME) or (
        source.endswith(ICEBERG_METADATA) and reader.format is None
    ):
        found = _table_files(source, "iceberg", reader)
        if not found:
            raise UserError(f"No data files in {source}: the table has no rows.")
        return found
    filesystem, path = open_filesystem(source)
    search = Search(filesystem, reader)
    try:
        search.refuse_inside_table(path)
        root, files = search.list(path)
    except Exception as error:
        if isinstance(error, OSError) or source.startswith(HUB_SCHEME):  # any kind, of its client
            raise UserError(f"Cannot read {source}: {str(error).splitlines()[0]}") from error
        raise
    note = search.passed_over_below(source)
    depth = len(PurePosixPath(path).relative_to(root).parts)
    of_tables = []
    for directory, kind in search.tables.items():
        below = str(path_below(root, directory))
        uri = _uri_below(source, depth, below) if "://" in source else directory
        of_tables += _table_files(uri, kind, reader, below)
    if not files and not of_tables:
        raise UserError(f"No data files in {source}. {note}Supported: {SUPPORTED}.")
    if note:
        on_note(note.rstrip())
    return [
        *(
            _source_file(source, depth, str(path_below(root, f.info.path)), f, reader)
            for f in files
        ),
        *of_tables,
    ]


def described(files: Sequence[SourceFile]) -> str:
    """Where files are, for people: the path of one, or the directory and the number of several."""
    paths = [file.path.partition("?")[0] for file in files]
    prefix = os.path.commonprefix(paths)  # noqa: RUF071 (it is cut at a slash; URIs may be mixed in)
    above = prefix.rpartition("/")[0] or "/"
    text = paths[0] if len(paths) == 1 else f"{above} ({len(paths):,} files)"
    return text.encode("utf-8", "replace").decode()  # of names that are not UTF-8


def _table_files(
    uri: str, kind: TableKind, reader: ReaderOptions, below: str = ""
) -> list[SourceFile]:
    """The files of a table at the snapshot that is wanted; `below` is the table's own path."""
    if reader.format is not None:
        raise UserError(
            f"{uri} is {TABLE_NAMES[kind]}, and not all of its files are current. Leave out "
            "--input-format, and it is read as a table."
        )
    if reader.snapshot is not None:
        table: TableSnapshot | None = TableSnapshot(uri=uri, snapshot=reader.snapshot)
    else:
        table = current_version(uri) if kind == "delta" else current_snapshot(uri)
    if table is None:
        return []
    opened = delta_table(table) if kind == "delta" else iceberg_table(table)
    return [_file_of_table(file, below, kind, table, reader) for file in opened.files]


def _file_of_table(
    file: DataFile, below: str, kind: TableKind, table: TableSnapshot, reader: ReaderOptions
) -> SourceFile:
    return SourceFile(
        path=file.path,
        relative=str(PurePosixPath(below, file.relative)),
        size=file.size,
        modified=file.modified,
        format=kind,
        compression=None,
        reader=reader.without_snapshot(),
        table=table,
    )


def _source_file(
    source: str, depth: int, relative: str, found: Found, reader: ReaderOptions
) -> SourceFile:
    info = found.info
    return SourceFile(
        path=_uri_below(source, depth, relative) if "://" in source else info.path,
        relative=relative,
        size=info.size,
        modified=info.mtime_ns or 0,
        format=found.format,
        compression=compression_of(info.path),
        reader=reader.without_snapshot(),
    )


def _uri_below(source: str, depth: int, relative: str) -> str:
    """The URI of the file at `relative` below the directory `depth` levels above `source`."""
    address, mark, query = source.partition("?")
    directory = address.rstrip("/").rsplit("/", depth)[0]
    below = "" if relative == "." else f"/{quote(relative, safe='/=')}"
    return f"{directory}{below}{mark}{query}"
