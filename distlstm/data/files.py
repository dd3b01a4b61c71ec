"""Finding the files that DATA and INPUT arguments name, on any filesystem pyarrow knows."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

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


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """A file of a corpus. Frozen facts: a changed file compares unequal."""

    path: str
    """Absolute path, or a URI."""
    relative: str
    """Path below the directory, glob or file that named it; an output mirrors it."""
    size: int
    """Bytes."""
    modified: int
    """Time of the last change, in nanoseconds."""
    format: str
    """`parquet`, `csv`, `tsv` or `jsonl`."""
    compression: str | None
    """`gzip`, `zstd` or None; of the whole file, Parquet's own does not count."""

    @property
    def partitions(self) -> dict[str, str]:
        """Hive partition columns, from directories named `column=value`."""
        pairs = [part.partition("=") for part in PurePosixPath(self.relative).parts[:-1]]
        return {name: value for name, separator, value in pairs if separator and name}


def open_filesystem(path: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a path or URI, and the path within it.

    Raises:
        UserError: the URI's scheme is unknown or its filesystem cannot be reached.
    """
    if "://" not in path:
        return pafs.LocalFileSystem(), path
    try:
        filesystem, inner = pafs.FileSystem.from_uri(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"Cannot open {path}: {error}") from error
    return filesystem, inner


def find_files(sources: Sequence[str]) -> list[SourceFile]:
    """The data files that paths, directories, globs and URIs name, each once, sorted by path.

    Names that begin with `_` or `.` are skipped, as Spark and Arrow do.

    Raises:
        UserError: nothing is there, or a file that was named has an unsupported suffix.
    """
    found = {file.path: file for source in sources for file in _find(source)}
    return [found[path] for path in sorted(found)]


def _find(source: str) -> list[SourceFile]:
    if "://" not in source:
        source = str(Path(source).expanduser().absolute())
    filesystem, path = open_filesystem(source)
    prefix = source.removesuffix(path)
    try:
        files = _list(filesystem, path)
    except OSError as error:
        raise UserError(f"Cannot read {source}: {error}") from error
    if not files:
        raise UserError(f"No data files in {source}. Supported: {SUPPORTED}.")
    return [_source_file(info, root, prefix) for root, info in files]


def _list(filesystem: pafs.FileSystem, path: str) -> list[tuple[str, pafs.FileInfo]]:
    """(root, file) of everything that `path` names; a file's relative path starts at its root."""
    info = filesystem.get_file_info(path)
    if info.type == pafs.FileType.File:
        if data_format(path) is None:
            raise UserError(
                f"Cannot tell the format of {path} by its suffix. Supported: {SUPPORTED}."
            )
        return [(str(PurePosixPath(path).parent), info)]
    if info.type == pafs.FileType.Directory:
        return [(path, file) for file in _walk(filesystem, path, recursive=True)]
    if not re.search(r"[*?\[]", path):
        raise UserError(f"{path} does not exist.")
    root = _fixed_part(path)
    recursive = "/" in path.removeprefix(root).strip("/")
    matches = re.compile(_glob_pattern(path)).fullmatch
    return [(root, f) for f in _walk(filesystem, root, recursive=recursive) if matches(f.path)]


def _walk(filesystem: pafs.FileSystem, root: str, *, recursive: bool) -> Iterable[pafs.FileInfo]:
    selector = pafs.FileSelector(root, recursive=recursive, allow_not_found=True)
    for info in filesystem.get_file_info(selector):
        below = PurePosixPath(info.path).relative_to(root)
        hidden = any(part.startswith(("_", ".")) and "=" not in part for part in below.parts)
        if info.type == pafs.FileType.File and not hidden and data_format(info.path):
            yield info


def data_format(path: str) -> tuple[str, str | None] | None:
    """(format, compression) by the suffixes of a file's name; None if it is not supported."""
    name = PurePosixPath(path)
    compression = _COMPRESSIONS.get(name.suffix.lower())
    suffix = PurePosixPath(name.stem).suffix if compression else name.suffix
    kind = _FORMATS.get(suffix.lower())
    return None if kind is None else (kind, compression)


def _source_file(info: pafs.FileInfo, root: str, prefix: str) -> SourceFile:
    kind, compression = data_format(info.path) or ("", None)
    return SourceFile(
        path=prefix + info.path,
        relative=str(PurePosixPath(info.path).relative_to(root)),
        size=info.size,
        modified=info.mtime_ns or 0,
        format=kind,
        compression=compression,
    )


def _fixed_part(pattern: str) -> str:
    parts = PurePosixPath(pattern).parts
    wild = next(i for i, part in enumerate(parts) if re.search(r"[*?\[]", part))
    return str(PurePosixPath(*parts[:wild]))


def _glob_pattern(glob: str) -> str:
    """A regular expression for a glob in which `**/` crosses directories and `*` does not."""
    pattern, rest = "", glob
    while rest:
        if rest.startswith("**/"):
            pattern, rest = pattern + "(?:.*/)?", rest[3:]
            continue
        group = re.match(r"\[!?\]?[^\]]*\]", rest)
        token = group.group() if group else rest[0]
        translated = {"*": "[^/]*", "?": "[^/]"}.get(token, re.escape(token))
        pattern += token.replace("[!", "[^", 1) if group else translated
        rest = rest[len(token) :]
    return pattern
