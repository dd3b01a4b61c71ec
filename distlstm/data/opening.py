"""Opening a data file: its bytes, decompressed, and one kind of error for what cannot be read."""

import codecs
import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from lzma import LZMAError, LZMAFile
from typing import Any

import pyarrow as pa

from distlstm.data.files import SourceFile, open_filesystem
from distlstm.errors import UserError

CSV_BLOCK = 16 * 2**20
"""Bytes of a CSV file that are read together; a row must fit."""
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
    return UnreadableFileError(f"Cannot read {file.path} as {file.format}: {reason}.")


@contextmanager
def opened(file: SourceFile) -> Iterator[Any]:
    """Open a file, decompressed; errors of its reader become an UnreadableFileError."""
    filesystem, path = open_filesystem(file.path)
    try:
        if file.format == "parquet":
            if file.compression is not None:
                raise OSError("Parquet is compressed within; decompress the file first")
            with filesystem.open_input_file(path) as source:
                yield source
        else:
            _refuse_parquet(filesystem, path)
            with _decompressed(filesystem, path, file.compression) as source:
                yield source
    except (*(pa.ArrowException, OSError, EOFError, UnicodeError), csv.Error, LZMAError) as error:
        raise unreadable(file, error) from error


@contextmanager
def _decompressed(filesystem: Any, path: str, compression: str | None) -> Iterator[Any]:
    if compression != "xz":
        with filesystem.open_input_stream(path, compression=compression) as source:
            yield source
        return
    with filesystem.open_input_stream(path, compression=None) as source, LZMAFile(source) as plain:
        yield pa.PythonFile(plain, "r")


def _refuse_parquet(filesystem: Any, path: str) -> None:
    with filesystem.open_input_file(path) as source:
        if source.read(4) == b"PAR1":
            raise OSError("its content is Parquet")


def encoding_of(start: bytes) -> str:
    """The encoding of a text file by its first bytes: that of a byte order mark, else UTF-8."""
    found = (name for mark, name in _BYTE_ORDER_MARKS.items() if start.startswith(mark))
    return next(found, "utf-8")


@contextmanager
def opened_text(file: SourceFile) -> Iterator[io.TextIOWrapper]:
    """The file's characters; a byte that is not UTF-8 becomes half a surrogate pair."""
    with opened(file) as source:
        buffered = io.BufferedReader(source)
        encoding = encoding_of(buffered.peek(4))
        errors = "surrogateescape" if encoding.startswith("utf-8") else "strict"
        yield io.TextIOWrapper(buffered, encoding, errors=errors, newline="")


def is_unicode(name: str) -> bool:
    """Whether a text that was read has no half of a surrogate pair."""
    return name.encode("utf-8", errors="ignore").decode() == name


def check_columns(file: SourceFile, schema: pa.Schema, columns: Sequence[str]) -> None:
    """Check that the schema has each of `columns` exactly once.

    Raises:
        UserError: one is missing (the message lists those that exist) or ambiguous.
    """
    for name in columns:
        if name not in schema.names:
            raise UserError(
                f"No column {name!r} in {file.path}. It has: {', '.join(schema.names) or 'none'}."
            )
        if schema.names.count(name) > 1:
            raise UserError(f"{file.path} has more than one column {name!r}; rename one of them.")
