"""What a directory can do, wherever it is."""

from collections.abc import Iterable, Iterator
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


class Storage(Protocol):
    """A directory. Names are relative, separated by `/`, and cannot lead out of it.

    Storages are equal if their locations are, and can be sent to other processes. Methods raise an
    OSError, whose text has the location and the reason, if the directory cannot be reached.
    """

    @property
    def is_local(self) -> bool:
        """Whether it is a directory of this machine."""

    @property
    def location(self) -> str:
        """Absolute path or URI, without a final slash."""

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

    def fetch(self, name: str, file: Path) -> None:
        """Copy a file to a local path: whole or not at all; raises FileNotFoundError."""

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """All files, or those of one subdirectory, recursively."""

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that do not exist are passed over."""

    def delete_below(self, prefix: str) -> None:
        """Delete all files of a subdirectory."""

    def delete_all(self) -> None:
        """Delete all files."""

    def create(self, name: str, data: bytes | str) -> bool:
        """Write a file if there is none of this name; whether it was written.

        In an object store, a file with the same content counts as written by this call, because
        the answer to its first attempt may have been lost. Processes that compete for a name put
        something unique into it.
        """


def to_bytes(data: bytes | str) -> bytes:
    """Texts are written as UTF-8."""
    return data.encode() if isinstance(data, str) else data
