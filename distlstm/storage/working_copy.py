"""The small files of an output that one process writes: in place, or on their way to a store."""

import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from distlstm.atomic import TEMPORARY_PREFIX
from distlstm.storage.local import LocalStorage
from distlstm.storage.object_store import ObjectStorage

_UNFINISHED = ("-journal", "-wal", "-shm")  # of SQLite


class WorkingCopy:
    """A local directory for the files of an output.

    For a local output it is the output itself. For one in an object store it is a temporary
    directory; `fetch` brings files from the store, `publish` writes those that have changed.
    """

    def __init__(self, storage: LocalStorage | ObjectStorage, *, last: Iterable[str]) -> None:
        """`last`: names of files, in any directory, that complete what is written before them."""
        self.storage = storage
        self._last = frozenset(last)
        self._published: dict[str, tuple[int, int]] = {}
        if isinstance(storage, LocalStorage):
            self.path = storage.path
        else:
            self.path = Path(tempfile.mkdtemp(prefix="distlstm-"), Path(storage.location).name)
            self.path.mkdir()

    def fetch(self, names: Iterable[str]) -> None:
        """Bring files, and whole directories (`best/`), that exist in the store."""
        if isinstance(self.storage, LocalStorage):
            return
        for name in names:
            if name.endswith("/"):
                self.fetch([entry.name for entry in self.storage.list(name.rstrip("/"))])
            elif self.storage.exists(name):
                self.storage.fetch(name, self.path / name)
                self._published[name] = _state(self.path / name)

    def publish(self) -> None:
        """Write the files that have changed to the store, those that complete others last."""
        if isinstance(self.storage, LocalStorage):
            return
        for file in sorted(filter(_is_finished, self.path.rglob("*")), key=self._order):
            name, state = file.relative_to(self.path).as_posix(), _state(file)
            if self._published.get(name) != state:
                self.storage.write_file(name, file)
                self._published[name] = state

    def delete(self, directory: str) -> None:
        """Delete a directory here and in the store."""
        shutil.rmtree(self.path / directory, ignore_errors=True)
        self.storage.delete_below(directory)

    def close(self) -> None:
        """Delete the temporary directory."""
        if not isinstance(self.storage, LocalStorage):
            shutil.rmtree(self.path.parent, ignore_errors=True)

    def _order(self, file: Path) -> tuple[bool, int, str]:
        """The deepest directories first, as their files complete only their own directory."""
        return file.name in self._last, -len(file.parts), file.name


def _is_finished(file: Path) -> bool:
    is_part = file.name.startswith(TEMPORARY_PREFIX) or file.name.endswith(_UNFINISHED)
    return file.is_file() and not is_part


def _state(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_size, found.st_mtime_ns
