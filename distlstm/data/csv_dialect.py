"""How the rows of a CSV or TSV file are to be told apart: as asked for, or as found out."""

import csv
import re
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from distlstm.data.csv_scanner import CSV_BLOCK, Scanner
from distlstm.data.files import SourceFile
from distlstm.data.opening import UnreadableFileError, encoding_of, opened_text

_LONE_BACKSLASH = re.compile(r'(?<!\\)(?:\\\\)*\\(?![\\"\r\n])')
_HOW = (
    "If its writer puts a backslash before special characters, as Spark and MySQL do, give "
    "--escape '\\'"
)


@dataclass(frozen=True)
class Dialect:
    """How the rows of a file are written."""

    delimiter: str
    quote: str
    """Around a value; doubled within it. Empty: there is none."""
    escape: str
    """Before a special character. Empty: there is none."""
    encoding: str
    null_values: tuple[str, ...]
    """Values without quotes that are null."""
    has_carriage_returns: bool = False
    """Whether a carriage return without a line feed is part of a value, not the end of a row."""

    @property
    def is_plain(self) -> bool:
        """Whether Arrow can read it."""
        marks = (self.delimiter, self.quote)
        is_short = all(len(mark) <= 1 and mark.isascii() for mark in marks)
        return is_short and self.escape == "" and not self.has_carriage_returns

    @property
    def scanner(self) -> Scanner:
        """A reader of this dialect."""
        return Scanner(
            self.delimiter,
            self.quote,
            self.escape,
            null_values=frozenset(self.null_values),
            has_carriage_returns=self.has_carriage_returns,
        )


@lru_cache(maxsize=64)
def dialect_of(file: SourceFile) -> Dialect:
    """By the reader options, suffix, first bytes and header; a pass checks the quotes of all rows.

    A TSV file whose quotes do not pair up has no quoting, as GLUE and other published sets.

    Raises:
        UnreadableFileError: a CSV file has a quote that is never closed, or text after one, or may
            have backslash escapes; names the line.
    """
    dialect = first_dialect(file)
    if not dialect.is_plain:
        return dialect
    with opened_text(file) as text:
        lines = _Lines(text)
        fault = _quoting_fault(lines, dialect)
        deque(lines, maxlen=0)  # those after a fault
    if fault is None and file.reader.escape is None and lines.has_two_backslashes:
        fault = _escape_fault(file, dialect)
    if fault is not None:
        if file.format != "tsv" or file.reader.quote is not None:
            raise UnreadableFileError(f"{file.path}, {fault}")
        dialect = replace(dialect, quote="")
    return replace(dialect, has_carriage_returns=lines.has_both_line_ends)


@dataclass
class _Lines:
    """The lines of a file, and what they have."""

    text: Iterable[str]
    has_two_backslashes: bool = False
    has_carriage_return: bool = False
    """Whether a line ends with a carriage return alone."""
    has_line_feed: bool = False

    @property
    def has_both_line_ends(self) -> bool:
        """Whether some lines end with a line feed, and others do not."""
        return self.has_carriage_return and self.has_line_feed

    def __iter__(self) -> Iterator[str]:
        for line in self.text:
            self.has_two_backslashes |= "\\\\" in line
            self.has_line_feed |= line.endswith("\n")
            self.has_carriage_return |= line.endswith("\r")
            yield line


@lru_cache(maxsize=64)
def first_dialect(file: SourceFile) -> Dialect:
    """The dialect before the rows are looked at, which is enough for the header."""
    reader = file.reader
    quote = '"' if reader.quote is None else reader.quote
    escape = "" if reader.escape is None or reader.escape == quote else reader.escape
    return Dialect(
        delimiter=reader.delimiter or _delimiter(file),
        quote=quote,
        escape=escape,
        encoding=encoding_of(file),
        null_values=reader.null_values or ("",),
    )


def _delimiter(file: SourceFile) -> str:
    """A tab in TSV, a comma in CSV; but another one if it is in the header and a comma is not."""
    if file.format == "tsv":
        return "\t"
    with opened_text(file) as lines:
        header = next(filter(str.strip, lines), "")
    return next((d for d in ",;\t|" if d in header), ",")


def _quoting_fault(lines: Iterable[str], dialect: Dialect) -> str | None:
    """What is wrong with the quotes, and in which line; None if nothing is."""
    limit = csv.field_size_limit(CSV_BLOCK)
    rows, start = python_reader(lines, dialect, strict=True), 1
    try:
        for _ in rows:
            start = rows.line_num + 1
    except csv.Error as error:
        if "expected after" in str(error):
            return f"line {rows.line_num}: text follows a closing quote. {_HOW}."
        return (
            f"line {start}: a quote opens here and is never closed, or its value is longer "
            f"than {CSV_BLOCK / 2**20:g} MiB. If quotes have no meaning in this file, give "
            "--quote ''."
        )
    finally:
        csv.field_size_limit(limit)
    return None


def _escape_fault(file: SourceFile, dialect: Dialect) -> str | None:
    r"""Whether two backslashes in a quoted value may stand for one, and in which line.

    They do not if another quoted value has a single backslash, or a doubled quote: a writer that
    escapes would have written `\\` and `\"`.
    """
    first, doubled = 0, 2 * dialect.quote
    with opened_text(file) as text:
        for field in dialect.scanner.fields(text):
            if not field.is_quoted:
                continue
            if doubled in field.raw or _LONE_BACKSLASH.search(field.raw):
                return None
            if not first and "\\\\" in field.raw:
                first = field.line
    if not first:
        return None
    return (
        f"line {first}: a quoted value has two backslashes, which may stand for one. {_HOW}; if "
        "not, --escape ''."
    )


def python_reader(lines: Iterable[str], dialect: Dialect, *, strict: bool = False) -> Any:
    """Python's own reader, for dialects that are plain."""
    return csv.reader(
        lines,
        delimiter=dialect.delimiter,
        quotechar=dialect.quote or None,
        quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
        strict=strict,
    )
