"""Atomic writes: a file appears complete or not at all."""

import ctypes
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

TEMPORARY_PREFIX = ".tmp-"
_HERE, _RENAME_EXCHANGE = -100, 2  # AT_FDCWD and the flag of Linux's renameat2(2)
_NORMAL_MODE = 0o644  # some libraries create files that only their owner may read


@contextmanager
def replace_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on exit, flush it to disk and rename it to `path`.

    If the block raises, the temporary file is removed and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        yield temporary
        temporary.chmod(_NORMAL_MODE)
        _flush(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically."""
    with replace_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def remove_leftovers(directory: Path) -> None:
    """Remove all temporary files under `directory` that a killed process left."""
    for leftover in directory.rglob(f"{TEMPORARY_PREFIX}*"):
        leftover.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_directory(new: Path, path: Path) -> None:
    """Rename a directory to `path`; remove the one that was there.

    On Linux the two are swapped in one step, so that `path` is always complete. Elsewhere, or on a
    file system that cannot swap, `path` is missing for a moment.
    """
    _flush(new)
    if not path.exists():
        new.rename(path)
        return
    if not _swap(new, path):
        aside = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex}")
        path.rename(aside)
        new.rename(path)
        new = aside
    shutil.rmtree(new)


def _swap(first: Path, second: Path) -> bool:
    """Exchange two paths of one directory; False where the system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    paths = _HERE, os.fsencode(first), _HERE, os.fsencode(second)
    return bool(renameat2(*paths, _RENAME_EXCHANGE) == 0)
