"""How to read input files, where their suffix and content do not say it."""

import codecs
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

from distlstm.errors import UserError

InputFormat = Literal["parquet", "csv", "tsv", "jsonl", "fasttext"]

_DELIMITED = frozenset({"csv", "tsv"})
_APPLIES_TO = {
    "delimiter": _DELIMITED,
    "quote": _DELIMITED,
    "escape": _DELIMITED,
    "header": _DELIMITED,
    "null_values": _DELIMITED,
    "encoding": _DELIMITED | {"jsonl", "fasttext"},
    "snapshot": frozenset({"delta", "iceberg"}),
}


@dataclass(frozen=True, kw_only=True)
class ReaderOptions:
    """How to read input files; by default, this is found out from the files.

    Raises:
        UserError: a value is not possible.
    """

    format: InputFormat | None = None
    """Format of all files; None: by the suffix, or by the first bytes."""
    delimiter: str | None = None
    """Between the values of a CSV or TSV row; None: a tab in TSV, else by the first row."""
    quote: str | None = None
    """Character around CSV and TSV values; empty: there is none; None: `"`, but none in TSV files
    whose quotes do not pair up."""
    escape: str | None = None
    """Character before a special one in CSV and TSV, such as a backslash; empty: there is none;
    None: there is none, and a file that seems to have one is refused."""
    header: tuple[str, ...] = ()
    """Column names of CSV and TSV files that have no header row; empty: the first row has them."""
    encoding: str | None = None
    """Encoding of CSV, TSV, JSON lines and fastText files; None: by the byte order mark, else
    UTF-8."""
    null_values: tuple[str, ...] = ()
    """Unquoted CSV and TSV values that are null; empty: the empty value."""
    snapshot: str | None = None
    """Version of a Delta table or snapshot id of an Iceberg table, also as a number; None: the
    current one."""

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in get_args(InputFormat):
            formats = ", ".join(get_args(InputFormat))
            raise UserError(f"The input format {self.format!r} is none of: {formats}.")
        if self.delimiter == "":
            raise UserError("The delimiter is empty; it is at least one character.")
        for name in ("quote", "escape"):
            value = getattr(self, name)
            if value is not None and len(value) > 1:
                raise UserError(f"The {name} is {value!r}; it is one character, or empty for none.")
        for name in ("header", "null_values"):
            self._make_tuple(name)
        snapshot: Any = self.snapshot
        object.__setattr__(self, "snapshot", None if snapshot is None else str(snapshot))
        self._check_distinct()
        if not all(self.header) or len(set(self.header)) < len(self.header):
            raise UserError("The header has an empty name, or the same name twice.")
        self._check_encoding()

    def _make_tuple(self, name: str) -> None:
        value: Any = getattr(self, name)
        if isinstance(value, str):
            raise UserError(f"{name} is a list of texts, not {value!r}.")
        object.__setattr__(self, name, tuple(value))

    def _check_distinct(self) -> None:
        given = [v for v in (self.delimiter, self.quote) if v]
        given += [self.escape] if self.escape and self.escape != self.quote else []
        if len(set(given)) < len(given) or any(v in ("\r", "\n") for v in given):
            raise UserError(
                "Delimiter, quote and escape must be different characters, and no line breaks."
            )

    def _check_encoding(self) -> None:
        try:
            if self.encoding is not None:
                codecs.lookup(self.encoding)
                "".encode(self.encoding)  # some codecs are not for text
        except (LookupError, ValueError) as error:
            raise UserError(
                f"Python has no text encoding {self.encoding!r}. Examples: utf-8, utf-16, latin-1, "
                "cp1252, gb18030, big5, shift_jis."
            ) from error

    def given(self) -> dict[str, Any]:
        """The options that differ from the default, as JSON values."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None and value != ()
        }

    def without_snapshot(self) -> "ReaderOptions":
        """The other options: outputs record the snapshot that was read, whether given or not."""
        return replace(self, snapshot=None)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "ReaderOptions":
        """The options that `given` returned."""
        return cls(**given)

    def check_used(self, formats: Iterable[str]) -> None:
        """Check that each option says something about one of the files.

        Raises:
            UserError: one does not; it was meant for other files.
        """
        found = set(formats)
        for name in self.given():
            wanted = _APPLIES_TO.get(name, found)
            if not wanted & found:
                raise UserError(
                    f"The option {name.replace('_', ' ')} has no effect: it is for "
                    f"{' and '.join(sorted(wanted))} files, and the files are "
                    f"{' and '.join(sorted(found))}."
                )


DETECT = ReaderOptions()
"""Everything is found out from the files."""
