"""Copies on this machine of what is in an object store, each fetched once for all processes.

A copy has a key that changes with its content, so it is never outdated. The copies that were not
used for the longest time are deleted when all take more than `DISTLSTM_CACHE_BYTES`; those that a
process uses are kept.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from distlstm.atomic import write_text
from distlstm.errors import RunError, UserError
from distlstm.storage.local import LocalStorage
from distlstm.storage.object_store import ObjectStorage

_DIRECTORY, _BYTES = "DISTLSTM_CACHE", "DISTLSTM_CACHE_BYTES"
_DEFAULT_BYTES = 20 * 2**30
_COMPLETE = "_complete"
"""In a copy, written last: its bytes. Its time is that of the last use."""
_FETCHED_AT_ONCE = 8
_used: dict[Path, int] = {}
"""Descriptors of the locks of the copies that this process uses, as long as it lives."""


def _unchecked(copy: Path) -> None:
    """Its reader checks it."""


def local_copy(
    storage: LocalStorage | ObjectStorage,
    names: Iterable[str],
    *,
    key: str,
    check: Callable[[Path], None] = _unchecked,
) -> Path:
    """A directory of this machine with these files of a storage; of a local one, itself.

    Args:
        storage: where the files are.
        names: of the files.
        key: a file name that stands for their content.
        check: raises an error if the copy is damaged; it is not kept then.

    Raises:
        FileNotFoundError: one of the files is missing.
        RunError: the copy cannot be written.
        UserError: `DISTLSTM_CACHE_BYTES` is no number.
        UnreachableError: the object store cannot be reached.
    """
    if isinstance(storage, LocalStorage):
        return storage.path
    copy = cache_directory() / key
    if copy not in _used:
        allowed = _allowed_bytes()
        with _writing(copy.parent):
            copy.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _used[copy] = _locked_copy(storage, names, copy, check)
            _shrink(copy.parent, allowed)
    return copy


def cache_directory() -> Path:
    """Where the copies are: `DISTLSTM_CACHE`, else a directory of the user."""
    given = os.environ.get(_DIRECTORY)
    above = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(given) if given else Path(above).expanduser() / "distlstm"


def _allowed_bytes() -> int:
    given = os.environ.get(_BYTES, str(_DEFAULT_BYTES))
    if not given.isdecimal():
        raise UserError(f"{_BYTES} is {given!r}; it must be a whole number of bytes.")
    return int(given)


def _locked_copy(
    storage: ObjectStorage, names: Iterable[str], copy: Path, check: Callable[[Path], None]
) -> int:
    """Fetch a copy if it is not there; the descriptor of its shared lock."""
    with _turn_to_fetch(copy):
        lock = os.open(_lock_of(copy), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH)  # from here on, nobody deletes it
            if not (copy / _COMPLETE).exists():
                _fetch(storage, list(names), copy, check)
            os.utime(copy / _COMPLETE)
        except BaseException:
            os.close(lock)
            raise
    return lock


@contextmanager
def _turn_to_fetch(copy: Path) -> Iterator[None]:
    """One process at a time, by a lock of its own: those that have the copy keep the shared one.

    A process that waited for sole use of the shared lock would wait until all the others end.
    """
    turn = os.open(copy.with_name(f"{copy.name}.turn"), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(turn, fcntl.LOCK_EX)
        yield
    finally:
        os.close(turn)


def _fetch(
    storage: ObjectStorage, names: list[str], copy: Path, check: Callable[[Path], None]
) -> None:
    shutil.rmtree(copy, ignore_errors=True)  # of a process that was killed
    copy.mkdir()
    with ThreadPoolExecutor(_FETCHED_AT_ONCE) as threads:
        for _ in threads.map(lambda name: storage.fetch(name, copy / name), names):
            pass
    check(copy)
    write_text(copy / _COMPLETE, str(sum((copy / name).stat().st_size for name in names)))


def _shrink(directory: Path, allowed: int) -> None:
    """Delete what was not used for the longest time, until the rest has the allowed bytes."""
    for copy in sorted(directory.glob(f"*/{_COMPLETE}"), key=_last_use, reverse=True):
        allowed -= _bytes_of(copy)
        if allowed < 0:
            _delete_unused(copy.parent)


def _last_use(complete: Path) -> float:
    try:
        return complete.stat().st_mtime
    except FileNotFoundError:  # another process deletes it
        return 0.0


def _bytes_of(complete: Path) -> int:
    try:
        return int(complete.read_text())
    except (FileNotFoundError, ValueError):
        return 0


def _delete_unused(copy: Path) -> None:
    lock = os.open(_lock_of(copy), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(copy, ignore_errors=True)
    except BlockingIOError:
        return
    finally:
        os.close(lock)


def _lock_of(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.lock")


@contextmanager
def _writing(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno is None:  # of the object store
            raise
        raise RunError(
            f"{directory}, where copies from object stores are kept, cannot be written: "
            f"{os.strerror(error.errno)}. Set {_DIRECTORY} to another directory."
        ) from error
