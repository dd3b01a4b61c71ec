"""Finds the files of DATA and INPUT arguments, on any file system that pyarrow supports."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
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
_COMPRESSIONS = {".gz": "gzip", ".zst": "zstd"}
SUPPORTED = "Parquet (.parquet), CSV (.csv, .tsv) and JSON lines (.jsonl), each also .gz or .zst"
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
    """`gzip`, `zstd` or None: of the whole file, not the compression inside Parquet."""

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

    Names that begin with `_` or `.` are skipped, as in Spark and Arrow.

    Raises:
        UserError: there are no files, or a file that was given has an unsupported suffix.
    """
    found = {file.path: file for source in sources for file in _find(absolute(source))}
    return [found[path] for path in sorted(found)]


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
    root, patterns = str(PurePosixPath(*parts[:first])), parts[first:]
    files = _walk(filesystem, root, recursive=len(patterns) > 1 or "**" in patterns)
    return root, [info for info in files if _matches(_below(root, info).parts, patterns)]


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


def _walk(filesystem: pafs.FileSystem, root: str, *, recursive: bool) -> Iterable[pafs.FileInfo]:
    selector = pafs.FileSelector(root, recursive=recursive, allow_not_found=True)
    for info in filesystem.get_file_info(selector):
        parts = _below(root, info).parts
        hidden = any(part.startswith(("_", ".")) and "=" not in part for part in parts)
        if info.type == pafs.FileType.File and not hidden and data_format(info.path):
            yield info


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
