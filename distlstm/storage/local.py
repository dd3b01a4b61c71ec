"""A directory of this machine, or of a disk that it shares."""

import os
import shutil
import sys
import uuid
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from distlstm.atomic import TEMPORARY_PREFIX, remove_leftovers, replace_file
from distlstm.regular_file import open_regular, read_regular
from distlstm.storage.base import Entry, to_bytes
from distlstm.storage.location import checked_name


@dataclass(frozen=True)
class LocalStorage:
    """See `Storage`."""

    path: Path
    """Absolute."""

    @property
    def is_local(self) -> bool:
        """Whether it is a directory of this machine."""
        return True

    @property
    def location(self) -> str:
        """Absolute path."""
        return str(self.path)

    def _at(self, name: str) -> Path:
        return self.path / checked_name(name)

    def at(self, name: str) -> str:
        """Path of a file."""
        return str(self._at(name))

    def below(self, name: str) -> "LocalStorage":
        """A subdirectory."""
        return LocalStorage(self._at(name))

    def read(self, name: str) -> bytes:
        """The content of a file; raises FileNotFoundError."""
        return read_regular(self._at(name))

    def read_text(self, name: str) -> str:
        """The content of a UTF-8 file; raises FileNotFoundError."""
        return self.read(name).decode()

    def write(self, name: str, data: bytes | str) -> None:
        """Write a file, or replace it: whole or not at all."""
        with replace_file(self._at(name)) as temporary:
            temporary.write_bytes(to_bytes(data))

    def write_file(self, name: str, file: Path) -> None:
        """Copy a local file into the directory: whole or not at all."""
        with replace_file(self._at(name)) as temporary:
            shutil.copyfile(file, temporary)

    def as_file(self, name: str) -> AbstractContextManager[Path]:
        """Yield the path of a file; raises FileNotFoundError."""
        path = self._at(name)
        path.stat()
        return nullcontext(path)

    def replacing(self, name: str) -> AbstractContextManager[Path]:
        """Yield a temporary path beside the file, which is renamed to it when the block ends."""
        return replace_file(self._at(name))

    def fetch(self, name: str, file: Path) -> None:
        """Copy a file to another path: whole or not at all; raises FileNotFoundError."""
        with replace_file(file) as temporary:
            shutil.copyfile(self._at(name), temporary)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """All files, or those of one subdirectory, recursively; unfinished ones are left out."""
        root = self._at(prefix) if prefix else self.path
        for directory, _, names in os.walk(root):
            for name in names:
                path = Path(directory, name)
                with suppress(FileNotFoundError):  # it was removed meanwhile
                    if not name.startswith(TEMPORARY_PREFIX):
                        found = path.stat()
                        below = path.relative_to(self.path).as_posix()
                        yield Entry(below, found.st_size, found.st_mtime_ns)

    def children(self) -> tuple[Sequence[str], Sequence[Entry]]:
        """The names of the subdirectories, and the files, of this directory alone.

        Links to directories are neither: they may lead anywhere, also back here.
        """
        directories, files = [], []
        with os.scandir(self.path) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):  # it was removed meanwhile
                    if entry.is_dir(follow_symlinks=False):
                        directories.append(entry.name)
                    elif entry.is_file() and not entry.name.startswith(TEMPORARY_PREFIX):
                        found = entry.stat()
                        files.append(Entry(entry.name, found.st_size, found.st_mtime_ns))
        return directories, files

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """The bytes of a file from `start` to before `end`; raises FileNotFoundError."""
        with open_regular(self._at(name), largest=sys.maxsize) as file:
            file.seek(start)
            return file.read(end - start)

    def entry(self, name: str) -> Entry:
        """Size and time of a file; raises FileNotFoundError."""
        found = self._at(name).stat()
        return Entry(name, found.st_size, found.st_mtime_ns)

    def is_empty(self, ignored: Collection[str] = ()) -> bool:
        """Whether there is nothing, besides files that are `ignored` or were never finished."""
        if not self.path.exists():
            return True
        kept = {self.path / name for name in ignored}
        return self.path.is_dir() and all(_is_nothing(e, kept) for e in self.path.iterdir())

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        path = self._at(name)
        return path.exists() and not path.is_dir()

    def remove_unfinished(self) -> None:
        """Delete files that a killed process had begun to write."""
        remove_leftovers(self.path)

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that do not exist are passed over."""
        for name in names:
            self._at(name).unlink(missing_ok=True)

    def delete_below(self, prefix: str) -> None:
        """Delete a subdirectory."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._at(prefix))

    def delete_all(self, kept: Collection[str] = ()) -> None:
        """Delete the content of the directory, besides files that are `kept`."""
        for entry in [entry for entry in self.path.glob("*") if entry.name not in kept]:
            if entry.is_dir() and not entry.is_symlink():
                shutil.rmtree(entry)
            else:
                entry.unlink()

    def create(self, name: str, data: bytes | str) -> bool:
        """Write a file if there is none of this name; whether it was written."""
        path = self._at(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        try:
            with temporary.open("wb") as file:
                file.write(to_bytes(data))
                file.flush()
                os.fsync(file.fileno())
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        finally:
            temporary.unlink(missing_ok=True)
        return True


def _is_nothing(entry: Path, ignored: Collection[Path]) -> bool:
    """Whether an entry is to be ignored, or a directory of such ones."""
    if entry.is_dir() and not entry.is_symlink():
        return entry not in ignored and all(_is_nothing(e, ignored) for e in entry.iterdir())
    return entry in ignored or entry.name.startswith(TEMPORARY_PREFIX)
