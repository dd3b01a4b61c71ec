"""Finds the files of DATA and INPUT arguments, on any file system that pyarrow supports."""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote

import pyarrow.fs as pafs

from distlstm.data.delta_table import current_version, delta_table
from distlstm.data.filesystem import HUB_SCHEME, open_filesystem
from distlstm.data.formats import SUPPORTED, compression_of, format_by_content, format_by_name
from distlstm.data.iceberg_table import current_snapshot, iceberg_table
from distlstm.data.lakehouse import (
    ICEBERG_METADATA,
    ICEBERG_SCHEME,
    TABLE_DIRECTORIES,
    TABLE_NAMES,
    DataFile,
    TableKind,
    TableSnapshot,
    table_kind,
    table_roots,
)
from distlstm.errors import UserError
from distlstm.reader_options import DETECT, ReaderOptions

_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_WILDCARD = re.compile(r"[*?\[]")
_IDENTIFYING = ("path", "relative", "size", "modified", "format", "compression")
_STANDARD_INPUT = ("-", "/dev/stdin")
_NAMED = 3
"""Files passed over that a note names."""
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
    """Whether a source finds the data files that are, or come to be, under a local directory."""
    source = absolute(source)
    if "://" in source:
        return False
    parts, wanted = PurePosixPath(source).parts, PurePosixPath(_real(path)).parts
    first = next((i for i, part in enumerate(parts) if _WILDCARD.search(part)), len(parts))
    root = PurePosixPath(_real(str(PurePosixPath(*parts[:first])))).parts
    below = (*wanted[len(root) :], "part.parquet")
    if wanted[: len(root)] != root or any(map(_is_hidden, below)):
        return False
    return first == len(parts) or _matches_above(below, parts[first:])


def _real_paths(paths: Iterable[str]) -> dict[str, str]:
    """By path. Links are rare and directories few, so neither is asked for more than needed."""
    directories: dict[str, str] = {}
    real = {}
    for path in paths:
        directory, name = os.path.split(path)
        if "://" in path or Path(path).is_symlink():
            real[path] = _real(path)
            continue
        if directory not in directories:
            directories[directory] = _real(directory)
        real[path] = str(Path(directories[directory], name))
    return real


def _real(path: str) -> str:
    """A local path without symbolic links; a URI as it is."""
    return path if "://" in path else os.path.realpath(path)


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
    search = _Search(filesystem, reader)
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
        below = str(_below(root, directory))
        uri = _uri_below(source, depth, below) if "://" in source else directory
        of_tables += _table_files(uri, kind, reader, below)
    if not files and not of_tables:
        raise UserError(f"No data files in {source}. {note}Supported: {SUPPORTED}.")
    if note:
        on_note(note.rstrip())
    return [
        *(_source_file(source, depth, str(_below(root, f.info.path)), f, reader) for f in files),
        *of_tables,
    ]


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


@dataclass(frozen=True)
class _Found:
    """A data file and its format."""

    info: pafs.FileInfo
    format: str


@dataclass(frozen=True)
class _Search:
    """Looks for data files on one file system."""

    filesystem: pafs.FileSystem
    reader: ReaderOptions
    passed_over: list[str] = field(default_factory=list)
    """Names of files that are not read."""
    tables: dict[str, TableKind] = field(default_factory=dict)
    """The directories that are tables."""

    def list(self, path: str) -> tuple[str, list[_Found]]:
        """The directory at which relative paths start, and the data files under `path`."""
        info = self.filesystem.get_file_info(path)
        if info.type == pafs.FileType.File:
            kind = self._format(path)
            if kind is None:
                raise UserError(
                    f"Cannot tell the format of {path} from its suffix or content. Supported: "
                    f"{SUPPORTED}. If it has one of these formats, name it with --input-format."
                )
            return str(PurePosixPath(path).parent), [_Found(info, kind)]
        if info.type == pafs.FileType.Directory:
            return path, [*self._walk(path)]
        if info.type == pafs.FileType.Unknown:
            raise UserError(f"{path} is neither a file nor a directory; write it to a file first.")
        if not _WILDCARD.search(path):
            raise UserError(f"{path} does not exist.")
        parts = PurePosixPath(path).parts
        first = next(i for i, part in enumerate(parts) if _WILDCARD.search(part))
        root = str(PurePosixPath(*parts[:first]))
        return root, [*self._glob(root, parts[first:])]

    def refuse_inside_table(self, path: str) -> None:
        """Raise a UserError if a path or glob leads into the directory of a table."""
        parts = PurePosixPath(path).parts
        first = next((i for i, part in enumerate(parts) if _WILDCARD.search(part)), len(parts) - 1)
        for end in range(1, first + 1):
            directory = str(PurePosixPath(*parts[:end]))
            with suppress(OSError, ValueError):  # such as one that the user may not list
                self._refuse_table(directory)

    def _refuse_table(self, directory: str) -> None:
        names = [f"{directory}/{name}" for name in TABLE_DIRECTORIES]
        kind = table_kind(self.filesystem, self.filesystem.get_file_info(names))
        if kind is not None:
            raise UserError(
                f"{directory} is {TABLE_NAMES[kind]}, and not all of its files are current. Give "
                "this directory as the input, and it is read as a table."
            )

    def passed_over_below(self, source: str) -> str:
        """A sentence about the files that were passed over; empty if there are none."""
        count, names = len(self.passed_over), sorted(self.passed_over)[:_NAMED]
        if not count:
            return ""
        names += ["and others"] if count > _NAMED else []
        return (
            f"Passed over {count:,} file{'s' if count > 1 else ''} in {source}, hidden or of an "
            f"unknown format: {', '.join(names)}. "
        )

    def _format(self, path: str) -> str | None:
        return (
            self.reader.format or format_by_name(path) or format_by_content(self.filesystem, path)
        )

    def _data_file(self, info: pafs.FileInfo) -> Iterator[_Found]:
        """The file, if it is one of data."""
        hidden = _is_hidden(info.base_name)
        if hidden and format_by_name(info.path) is None:
            return  # such as _SUCCESS and .DS_Store
        kind = None if hidden else self._format(info.path)
        if kind is None:
            self.passed_over.append(info.base_name)
        else:
            yield _Found(info, kind)

    def _glob(self, root: str, patterns: Sequence[str]) -> Iterator[_Found]:
        """The data files that match, and those under the directories that do."""
        self._refuse_table(root)
        if patterns[0] == "**":
            yield from self._walk(root, patterns)
            return
        for info in self._children(root):
            if _is_hidden(info.base_name) or not fnmatchcase(info.base_name, patterns[0]):
                continue
            if info.type == pafs.FileType.File:
                if len(patterns) == 1:
                    yield from self._data_file(info)
            elif len(patterns) > 1:
                yield from self._glob(info.path, patterns[1:])
            else:
                yield from self._walk(info.path)

    def _walk(self, root: str, patterns: Sequence[str] = ("**",)) -> Iterator[_Found]:
        """The data files under a directory that match; tables are added to `tables`."""
        before = set(self.tables)
        for info in self._files(root):
            if _matches_above(_below(root, info.path).parts, patterns):
                yield from self._data_file(info)
        for directory in self.tables.keys() - before:
            if tuple(patterns) != ("**",) and not _matches_above(
                _below(root, directory).parts, patterns
            ):
                self._leave_out(directory, root, patterns)

    def _leave_out(self, directory: str, root: str, patterns: Sequence[str]) -> None:
        """Forget a table that does not match; refuse it if one of its files does."""
        selector = pafs.FileSelector(directory, recursive=True)
        for info in self.filesystem.get_file_info(selector):
            if _matches_above(_below(root, info.path).parts, patterns):
                self._refuse_table(directory)
        del self.tables[directory]

    def _files(self, root: str, above: tuple[str, ...] = ()) -> Iterator[pafs.FileInfo]:
        """All files outside of tables; of these, the directories are added to `tables`.

        Hidden directories, and links to a directory above, are not entered.
        """
        if not isinstance(self.filesystem, pafs.LocalFileSystem):  # no links: one call lists all
            yield from self._all_files(root)
            return
        above, children = (*above, _real(root)), self._children(root)
        kind = table_kind(self.filesystem, children)
        if kind is not None:
            self.tables[root] = kind
            return
        for info in children:
            if info.type == pafs.FileType.File:
                yield info
            elif not _is_hidden(info.base_name) and _real(info.path) not in above:
                yield from self._files(info.path, above)

    def _all_files(self, root: str) -> Iterator[pafs.FileInfo]:
        selector = pafs.FileSelector(root, recursive=True, allow_not_found=True)
        found = [
            info
            for info in self.filesystem.get_file_info(selector)
            if info.type == pafs.FileType.File
        ]
        tables = table_roots(found)
        for directory, kind in tables.items():
            if not any(map(_is_hidden, _below(root, directory).parts)):
                self.tables[directory] = kind
        for info in found:
            hidden = any(map(_is_hidden, _below(root, info.path).parts[:-1]))
            if not hidden and tables.keys().isdisjoint(map(str, PurePosixPath(info.path).parents)):
                yield info

    def _children(self, root: str) -> Sequence[pafs.FileInfo]:
        found = self.filesystem.get_file_info(pafs.FileSelector(root, allow_not_found=True))
        return tuple(found)


def _matches_above(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a path, or a directory that it lies in, matches a glob."""
    return any(_matches(parts[: end + 1], patterns) for end in range(len(parts)))


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a path matches a glob; `**` matches any number of directories, also none."""
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_matches(parts[skipped:], patterns[1:]) for skipped in range(len(parts) + 1))
    return (
        len(parts) > 0 and fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])
    )


def _below(root: str, path: str) -> PurePosixPath:
    return PurePosixPath(path).relative_to(root)


def _is_hidden(name: str) -> bool:
    return name.startswith(("_", ".")) and "=" not in name


def _source_file(
    source: str, depth: int, relative: str, found: _Found, reader: ReaderOptions
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
