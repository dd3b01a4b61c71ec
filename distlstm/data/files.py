"""Finds the files of DATA and INPUT arguments, on any file system that pyarrow supports."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from urllib.parse import quote, unquote

import pyarrow as pa
import pyarrow.fs as pafs

from distlstm.errors import UserError

_FORMATS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
}
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".xz": "xz"}
SUPPORTED = (
    "Parquet (.parquet), CSV (.csv, .tsv) and JSON lines (.jsonl), the last two also with .gz, "
    ".zst, .bz2 or .xz"
)
_NULL_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_WILDCARD = re.compile(r"[*?\[]")


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
    """`parquet`, `csv`, `tsv` or `jsonl`."""
    compression: str | None
    """`gzip`, `zstd`, `bz2`, `xz` or None: of the whole file, not that inside Parquet."""

    @property
    def partitions(self) -> dict[str, str | None]:
        """Hive partition columns, from directories named `column=value`, percent-decoded."""
        pairs = [part.partition("=") for part in PurePosixPath(self.relative).parts[:-1]]
        return {
            unquote(name): None if value == _NULL_PARTITION else unquote(value)
            for name, separator, value in pairs
            if separator and name
        }


def files_fingerprint(files: Sequence[SourceFile]) -> str:
    """A digest that changes with the path, size or time of any file."""
    return digest([asdict(file) for file in files])


def digest(value: object) -> str:
    """A short digest of plain values."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def open_filesystem(path: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a path or URI, and the path within it.

    Raises:
        UserError: the URI's scheme is unknown, or its file system cannot be reached.
    """
    if "://" not in path:
        return pafs.LocalFileSystem(), path
    try:
        filesystem, inner = pafs.FileSystem.from_uri(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"Cannot open {path}: {error}") from error
    return filesystem, inner


def has_changed(file: SourceFile) -> bool:
    """Whether the size or the time of a file has changed since it was found."""
    filesystem, path = open_filesystem(file.path)
    info = filesystem.get_file_info(path)
    return (info.size, info.mtime_ns or 0) != (file.size, file.modified)


def find_files(sources: Sequence[str]) -> list[SourceFile]:
    """The data files under paths, directories, globs and URIs, each once, sorted by path.

    Names that begin with `_` or `.` are skipped, as in Spark and Arrow. Symbolic links are
    followed; of several paths to one file, one without a link is taken.

    Raises:
        UserError: there are no files, or a file that was given has an unsupported suffix.
    """
    named = {file.path: file for source in sources for file in _find(absolute(source))}
    real, once = _real_paths(named), dict[str, str]()
    for path in sorted(named, key=lambda path: (path != real[path], len(path), path)):
        once.setdefault(real[path], path)
    return [named[path] for path in sorted(once.values())]


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


def _find(source: str) -> list[SourceFile]:
    filesystem, path = open_filesystem(source)
    try:
        root, files = _list(filesystem, path)
    except OSError as error:
        raise UserError(f"Cannot read {source}: {error}") from error
    if not files:
        raise UserError(f"No data files in {source}. Supported: {SUPPORTED}.")
    depth = len(PurePosixPath(path).relative_to(root).parts)
    return [_source_file(source, depth, str(_below(root, info)), info) for info in files]


def _list(filesystem: pafs.FileSystem, path: str) -> tuple[str, list[pafs.FileInfo]]:
    """The directory at which relative paths start, and the files under `path`."""
    info = filesystem.get_file_info(path)
    if info.type == pafs.FileType.File:
        if data_format(path) is None:
            raise UserError(
                f"Cannot tell the format of {path} from its suffix. Supported: {SUPPORTED}."
            )
        return str(PurePosixPath(path).parent), [info]
    if info.type == pafs.FileType.Directory:
        return path, list(_walk(filesystem, path, recursive=True))
    if not _WILDCARD.search(path):
        raise UserError(f"{path} does not exist.")
    return _list_glob(filesystem, PurePosixPath(path).parts)


def _list_glob(
    filesystem: pafs.FileSystem, parts: tuple[str, ...]
) -> tuple[str, list[pafs.FileInfo]]:
    first = next(i for i, part in enumerate(parts) if _WILDCARD.search(part))
    root = str(PurePosixPath(*parts[:first]))
    return root, list(_glob(filesystem, root, parts[first:]))


def _glob(
    filesystem: pafs.FileSystem, root: str, patterns: Sequence[str]
) -> Iterator[pafs.FileInfo]:
    """The data files that match, and those under the directories that do."""
    if patterns[0] == "**":
        for info in _walk(filesystem, root, recursive=True):
            if _matches_above(_below(root, info).parts, patterns):
                yield info
        return
    for info in _children(filesystem, root):
        if _is_hidden(info.base_name) or not fnmatchcase(info.base_name, patterns[0]):
            continue
        if info.type == pafs.FileType.File:
            if len(patterns) == 1 and data_format(info.path):
                yield info
        elif len(patterns) > 1:
            yield from _glob(filesystem, info.path, patterns[1:])
        else:
            yield from _walk(filesystem, info.path, recursive=True)


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


def _below(root: str, info: pafs.FileInfo) -> PurePosixPath:
    return PurePosixPath(info.path).relative_to(root)


def _walk(
    filesystem: pafs.FileSystem, root: str, *, recursive: bool, above: tuple[str, ...] = ()
) -> Iterator[pafs.FileInfo]:
    """The data files under a directory; one that links to a directory above it is not entered."""
    if not isinstance(filesystem, pafs.LocalFileSystem):  # without links: one call lists all
        selector = pafs.FileSelector(root, recursive=recursive, allow_not_found=True)
        for info in filesystem.get_file_info(selector):
            hidden = any(map(_is_hidden, _below(root, info).parts))
            if info.type == pafs.FileType.File and not hidden and data_format(info.path):
                yield info
        return
    above = (*above, _real(root))
    for info in _children(filesystem, root):
        if _is_hidden(info.base_name):
            continue
        if info.type == pafs.FileType.File and data_format(info.path):
            yield info
        elif info.type == pafs.FileType.Directory and recursive and _real(info.path) not in above:
            yield from _walk(filesystem, info.path, recursive=True, above=above)


def _children(filesystem: pafs.FileSystem, root: str) -> list[pafs.FileInfo]:
    found = filesystem.get_file_info(pafs.FileSelector(root, allow_not_found=True))
    return list(found)


def _is_hidden(name: str) -> bool:
    return name.startswith(("_", ".")) and "=" not in name


def data_format(path: str) -> tuple[str, str | None] | None:
    """(format, compression) from the suffixes of a file name; None if it is not supported."""
    name = PurePosixPath(path)
    compression = _COMPRESSIONS.get(name.suffix.lower())
    suffix = PurePosixPath(name.stem).suffix if compression else name.suffix
    kind = _FORMATS.get(suffix.lower())
    return None if kind is None else (kind, compression)


def _source_file(source: str, depth: int, relative: str, info: pafs.FileInfo) -> SourceFile:
    kind, compression = data_format(info.path) or ("", None)
    return SourceFile(
        path=_uri_below(source, depth, relative) if "://" in source else info.path,
        relative=relative,
        size=info.size,
        modified=info.mtime_ns or 0,
        format=kind,
        compression=compression,
    )


def _uri_below(source: str, depth: int, relative: str) -> str:
    """The URI of the file at `relative` below the directory `depth` levels above `source`."""
    address, mark, query = source.partition("?")
    directory = address.rstrip("/").rsplit("/", depth)[0]
    return f"{directory}/{quote(relative, safe='/=')}{mark}{query}"
