"""What a directory can do, wherever it is."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

Version = dict[str, str]
"""The version of an object: opaque, for `ObjectStorage.replace_if`."""


@dataclass(frozen=True)
class Entry:
    """A file below a directory."""

    name: str
    """Path below the directory, with `/`."""
    size: int
    """Bytes."""
    modified: int
    """Time of the last change in nanoseconds. Object stores tell whole seconds; the rest of the
    number follows from the ETag, so that two writes within a second differ."""
    etag: str | None = None


class UnreachableError(OSError):
    """An object store cannot be reached, or refuses; the text has the location and the reason."""


class Storage(Protocol):
    """A directory. Names are relative, separated by `/`, and cannot lead out of it.

    Storages are equal if their locations are, and can be sent to other processes. Methods raise an
    OSError, whose text has the location and the reason, if the directory cannot be reached; of an
    object store, that is an UnreachableError.
    """

    @property
    def is_local(self) -> bool:
        """Whether it is a directory of this machine."""

    @property
    def location(self) -> str:
        """Absolute path or URI, without a final slash."""

    def at(self, name: str) -> str:
        """Path or URI of a file."""

    def below(self, name: str) -> Self:
        """A subdirectory."""

    def read(self, name: str) -> bytes:
        """The content of a file; raises FileNotFoundError."""

    def read_text(self, name: str) -> str:
        """The content of a UTF-8 file; raises FileNotFoundError."""

    def write(self, name: str, data: bytes | str) -> None:
        """Write a file, or replace it: whole or not at all."""

    def write_file(self, name: str, file: Path) -> None:
        """Copy a local file into the directory: whole or not at all."""

    def as_file(self, name: str) -> AbstractContextManager[Path]:
        """Yield a local path with the content of a file; raises FileNotFoundError."""

    def replacing(self, name: str) -> AbstractContextManager[Path]:
        """Yield a local path to write a file to; it appears in the directory when the block ends.

        If the block raises, nothing changes.
        """

    def fetch(self, name: str, file: Path) -> None:
        """Copy a file to a local path: whole or not at all; raises FileNotFoundError."""

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """All files, or those of one subdirectory, recursively."""

    def children(self) -> tuple[Sequence[str], Sequence[Entry]]:
        """The names of the subdirectories, and the files, of this directory alone."""

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """The bytes of a file from `start` to before `end`; raises FileNotFoundError."""

    def entry(self, name: str) -> Entry:
        """Size and time of a file; raises FileNotFoundError."""

    def is_empty(self, ignored: Collection[str] = ()) -> bool:
        """Whether there is nothing, besides files that are `ignored` or were never finished."""

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""

    def remove_unfinished(self) -> None:
        """Delete files that a killed process had begun to write."""

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that do not exist are passed over."""

    def delete_below(self, prefix: str) -> None:
        """Delete all files of a subdirectory."""

    def delete_all(self, kept: Collection[str] = ()) -> None:
        """Delete all files, besides those that are `kept`."""

    def create(self, name: str, data: bytes | str) -> bool:
        """Write a file if there is none of this name; whether it was written.

        In an object store, a file with the same content counts as written by this call, because
        the answer to its first attempt may have been lost. Processes that compete for a name put
        something unique into it.
        """


def to_bytes(data: bytes | str) -> bytes:
    """Texts are written as UTF-8."""
    return data.encode() if isinstance(data, str) else data
