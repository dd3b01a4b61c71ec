"""The format of a data file: by its suffix, else by its first bytes."""

import codecs
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError, LZMAFile
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

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
    "Parquet (.parquet), CSV (.csv, .tsv), JSON lines (.jsonl) and fastText (lines that begin with "
    "__label__), all but Parquet also with .gz, .zst, .bz2 or .xz"
)
PARQUET_MARK = b"PAR1"
_BEGINNINGS = {PARQUET_MARK: "parquet", b"__label__": "fasttext"}
_BEGINNING_BYTES = 16


def format_by_name(path: str) -> str | None:
    """The format by the suffixes of a file name; None if they do not say it."""
    name = PurePosixPath(path)
    return _FORMATS.get((PurePosixPath(name.stem) if compression_of(path) else name).suffix.lower())


def compression_of(path: str) -> str | None:
    """`gzip`, `zstd`, `bz2`, `xz` or None, by the suffix of a file name."""
    return _COMPRESSIONS.get(PurePosixPath(path).suffix.lower())


def format_by_content(filesystem: pafs.FileSystem, path: str) -> str | None:
    """The format by the first bytes of a file; None if they do not say it.

    Raises:
        OSError: the file cannot be opened.
    """
    compression = compression_of(path)
    try:
        with decompressed(filesystem, path, compression) as source:
            start = source.read(_BEGINNING_BYTES).removeprefix(codecs.BOM_UTF8)
    except (LZMAError, EOFError, OSError, pa.ArrowInvalid):
        if compression is None:
            raise
        return None  # it is not compressed as its name says
    return next((kind for mark, kind in _BEGINNINGS.items() if start.startswith(mark)), None)


@contextmanager
def decompressed(filesystem: pafs.FileSystem, path: str, compression: str | None) -> Iterator[Any]:
    """Open a file as a stream of its decompressed bytes."""
    if compression != "xz":
        with filesystem.open_input_stream(path, compression=compression) as source:
            yield source
        return
    with filesystem.open_input_stream(path, compression=None) as source, LZMAFile(source) as plain:
        yield pa.PythonFile(plain, "r")
