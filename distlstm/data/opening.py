"""Opening a data file: its bytes, decompressed, and one kind of error for what cannot be read."""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from lzma import LZMAError
from typing import Any

import pyarrow as pa

from distlstm.data.csv_scanner import CSV_BLOCK, ScanError
from distlstm.data.files import SourceFile
from distlstm.data.filesystem import open_filesystem
from distlstm.data.formats import PARQUET_MARK, decompressed
from distlstm.errors import UserError

_FAULTS = (pa.ArrowException, OSError, EOFError, UnicodeError, csv.Error, LZMAError, ScanError)
_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


class UnreadableFileError(UserError):
    """A file that cannot be read in the format of its suffix."""


def unreadable(file: SourceFile, error: Exception) -> UnreadableFileError:
    """The error for a file that its reader rejected, in one sentence."""
    if file.size == 0:
        return UnreadableFileError(f"{file.path} is empty (0 bytes).")
    reason = str(error).strip().split("\n")[0].rstrip(".")
    if "straddles two block boundaries" in reason:
        reason = f"a row is longer than {CSV_BLOCK / 2**20:g} MiB, or a quote is never closed"
    hint = ""
    if isinstance(error, ScanError) or (file.format in ("csv", "tsv") and "Expected" in reason):
        hint = " Are --delimiter, --quote and --escape right for this file?"
    elif isinstance(error, UnicodeError):
        hint = " Give its encoding with --encoding, such as latin-1 or gb18030."
    return UnreadableFileError(f"Cannot read {file.path} as {file.format}: {reason}.{hint}")


@contextmanager
def opened(file: SourceFile) -> Iterator[Any]:
    """Open a file, decompressed; errors of its reader become an UnreadableFileError."""
    filesystem, path = open_filesystem(file.path)
    try:
        if file.is_parquet:
            if file.compression is not None:
                raise OSError("Parquet is compressed within; decompress the file first")
            with filesystem.open_input_file(path) as source:
                yield source
        else:
            _refuse_parquet(filesystem, path)
            with decompressed(filesystem, path, file.compression) as source:
                yield source
    except _FAULTS as error:
        raise unreadable(file, error) from error


def _refuse_parquet(filesystem: Any, path: str) -> None:
    with filesystem.open_input_file(path) as source:
        if source.read(len(PARQUET_MARK)) == PARQUET_MARK:
            raise OSError("its content is Parquet")


@lru_cache(maxsize=64)
def encoding_of(file: SourceFile) -> str:
    """The encoding of a text file: as given, or by a byte order mark, else UTF-8."""
    given = file.reader.encoding
    if given is not None and codecs.lookup(given).name != "utf-8":
        return given
    with opened(file) as source:
        start = source.read(4)
    found = (name for mark, name in _BYTE_ORDER_MARKS.items() if start.startswith(mark))
    return next(found, "utf-8")


@contextmanager
def opened_text(file: SourceFile) -> Iterator[io.TextIOWrapper]:
    """The file's characters; a byte that is not UTF-8 becomes half a surrogate pair."""
    encoding = encoding_of(file)
    errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
    with opened(file) as source:
        buffered = io.BufferedReader(source)
        yield io.TextIOWrapper(buffered, encoding, errors=errors, newline="")


def is_unicode(name: str) -> bool:
    """Whether a text that was read has no half of a surrogate pair."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def text_column(texts: Sequence[str | None]) -> pa.Array:
    """Texts as an Arrow column: of strings, or of bytes if one is not UTF-8."""
    try:
        return pa.array(texts, pa.string())
    except UnicodeEncodeError:
        return pa.array([None if text is None else _to_bytes(text) for text in texts], pa.binary())


def _to_bytes(text: str) -> bytes:
    """The bytes in the file; an escaped half of a surrogate pair is not valid UTF-8."""
    try:
        return text.encode("utf-8", errors="surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", errors="surrogatepass")


def check_columns(file: SourceFile, schema: pa.Schema, columns: Sequence[str]) -> None:
    """Check that the schema has each of `columns` exactly once.

    Raises:
        UserError: one is missing (the message lists those that exist) or ambiguous.
    """
    for name in columns:
        if name not in schema.names:
            names = ", ".join(map(repr, schema.names)) or "none"
            hint = ""
            if file.format in ("csv", "tsv") and not file.reader.header:
                hint = " If its first row is data, name the columns with --header."
            raise UserError(f"No column {name!r} in {file.path}. It has: {names}.{hint}")
        if schema.names.count(name) > 1:
            raise UserError(f"{file.path} has more than one column {name!r}; rename one of them.")
