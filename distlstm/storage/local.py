"""A directory of this machine, or of a disk that it shares."""

import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from distlstm.atomic import TEMPORARY_PREFIX, replace_file
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

    def below(self, name: str) -> "LocalStorage":
        """A subdirectory."""
        return LocalStorage(self._at(name))

    def read(self, name: str) -> bytes:
        """The content of a file; raises FileNotFoundError."""
        return self._at(name).read_bytes()

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

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return self._at(name).is_file()

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that do not exist are passed over."""
        for name in names:
            self._at(name).unlink(missing_ok=True)

    def delete_below(self, prefix: str) -> None:
        """Delete a subdirectory."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self._at(prefix))

    def delete_all(self) -> None:
        """Delete the directory."""
        with suppress(FileNotFoundError):
            shutil.rmtree(self.path)

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
