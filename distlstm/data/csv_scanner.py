r"""Reads rows of CSV and TSV in dialects that Arrow does not have: escapes, and long delimiters.

Where values stand in quotes, an escape has a meaning only there, and only before a quote, a line
break or another escape: Spark and DuckDB write so, and leave other backslashes alone. Without
quoting, as in the text formats of MySQL, PostgreSQL and Hive, an escape makes the next character
plain; a backslash also makes `\n` a line feed, `\t` a tab, and `\N` null.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, TextIO

_BLOCK = 2**20
CSV_BLOCK = 16 * 2**20
"""Bytes of a CSV file that are read together; a row must fit. The scanner takes characters."""
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "0": "\0", "Z": "\x1a"}


class ScanError(ValueError):
    """A file that is not in the scanner's dialect; names the line."""


class Field(NamedTuple):
    """A value as it is in the file."""

    raw: str
    is_quoted: bool
    """Whether it stood in quotes; `raw` is without them."""
    ends_row: bool
    line: int
    """Number of the line in which it begins, from 1."""


@dataclass(frozen=True)
class Scanner:
    """A dialect; see `csv_dialect.Dialect`."""

    delimiter: str
    quote: str
    escape: str
    null_values: frozenset[str] = frozenset()
    has_carriage_returns: bool = False

    def rows(self, text: TextIO) -> Iterator[tuple[int, list[str | None]]]:
        """The rows of a file, each with the number of its first line; an empty one has no values.

        Raises:
            ScanError: a quote is never closed, or text follows one.
        """
        row: list[str | None] = []
        line = 0
        for field in self.fields(text):
            line = line or field.line
            if not field.ends_row or row or field.raw or field.is_quoted:
                row.append(self._value(field))
            if field.ends_row:
                yield line, row
                row, line = [], 0

    def fields(self, text: TextIO) -> Iterator[Field]:
        """The values of a file, as they are in it.

        Raises:
            ScanError: a quote is never closed, or text follows one.
        """
        buffer, position, line, in_row = "", 0, 1, False
        at_end = False
        while True:
            found = self._pattern.match(buffer, position)
            if found is None or (found.end() == len(buffer) and not at_end):
                if at_end or len(buffer) - position > CSV_BLOCK:
                    raise ScanError(self._fault(buffer, position, line))
                more = text.read(max(_BLOCK, len(buffer) - position))
                buffer, position, at_end = buffer[position:] + more, 0, not more
                continue
            if position == len(buffer) and not in_row:
                return
            end = found["end"]
            in_row = end == self.delimiter
            quoted = found["quoted"]
            raw = found["plain"] if quoted is None else quoted
            yield Field(raw, quoted is not None, not in_row, line)
            if quoted is not None or not in_row:
                line += _line_breaks(found[0])
            position = found.end()

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """Matches a value and what ends it."""
        quote, escape, delimiter = map(re.escape, (self.quote, self.escape, self.delimiter))
        first = re.escape(self.delimiter[0])
        alone, end = (r"|\r(?!\n)", "") if self.has_carriage_returns else ("", r"|\r")
        end = rf"(?P<end>{delimiter}|\r\n|\n{end}|\Z)"
        # Python before 3.11.5 repeats groups wrongly if they are possessive, so only classes are.
        other = rf"[^\r\n{escape}{first}]++"
        other += rf"|(?!{delimiter}){first}" if len(self.delimiter) > 1 else ""
        if quote:
            other += f"|{escape}" if escape else ""  # outside quotes, it is text
            quoted = rf"{quote}(?P<quoted>{self._inside.pattern}){quote}"
            plain = rf"(?!{quote})(?:{other}{alone})*"
            return re.compile(rf"(?:{quoted}|(?P<plain>{plain})){end}", re.DOTALL)
        other += f"|{escape}." if escape else ""
        return re.compile(rf"(?P<quoted>(?!))?(?P<plain>(?:{other}{alone})*){end}", re.DOTALL)

    @cached_property
    def _inside(self) -> re.Pattern[str]:
        """Matches what stands between two quotes."""
        quote, escape = re.escape(self.quote), re.escape(self.escape)
        escaped = f"|{escape}." if escape else ""
        return re.compile(rf"(?:[^{quote}{escape}]++{escaped}|{quote}{quote})*", re.DOTALL)

    @cached_property
    def _escapes(self) -> re.Pattern[str]:
        quote, escape = re.escape(self.quote), re.escape(self.escape)
        if not quote:
            return re.compile(rf"{escape}(.)", re.DOTALL)
        escaped = rf"{escape}([{quote}{escape}\r\n])|" if escape else ""
        return re.compile(rf"{escaped}{quote}({quote})")

    def _value(self, field: Field) -> str | None:
        if not field.is_quoted and (field.raw in self.null_values or self._is_null(field.raw)):
            return None
        if not (field.is_quoted or (self.escape and not self.quote)):
            return field.raw
        return self._escapes.sub(self._meaning, field.raw)

    def _is_null(self, raw: str) -> bool:
        return raw == "\\N" and self.escape == "\\" and not self.quote

    def _meaning(self, found: re.Match[str]) -> str:
        character: str = next(filter(None, found.groups()))
        has_letters = self.escape == "\\" and not self.quote
        return _LETTERS.get(character, character) if has_letters else character

    def _fault(self, buffer: str, position: int, line: int) -> str:
        """What is wrong with the value at a position."""
        if self.quote and buffer.startswith(self.quote, position):
            closed = self._inside.match(buffer, position + len(self.quote))
            if closed and buffer.startswith(self.quote, closed.end()):
                return f"line {line}: text follows the closing quote of a value that begins here"
            return f"line {line}: a quote opens here and is never closed"
        return f"line {line}: a value is longer than {CSV_BLOCK / 2**20:g} MiB"


def _line_breaks(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")
