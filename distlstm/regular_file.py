"""Opens small files of directories that may come from a stranger: it refuses FIFOs and devices."""

import os
import stat
import sys
from io import BufferedReader
from pathlib import Path

LARGEST = 2**30
"""Bytes of a record such as a manifest or a table of trials; the larger ones have megabytes."""
_LEAST = 2**16
"""Bytes that are read even if the file says it has none, as those of /proc do."""
_NOT_BLOCKING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: Path, *, largest: int = LARGEST) -> BufferedReader:
    """Open a file of at most `largest` bytes for reading; links to regular files are followed.

    Raises:
        OSError: it is a FIFO, a device, a socket or a directory, is too large, or cannot be read.
    """
    _check(path, path.stat(), largest)  # opening a device may already have an effect
    file = os.fdopen(os.open(path, os.O_RDONLY | _NOT_BLOCKING), "rb")
    try:
        _check(path, os.fstat(file.fileno()), largest)
    except OSError:
        file.close()
        raise
    return file


def read_regular(path: Path, *, largest: int = LARGEST) -> bytes:
    """Read such a file."""
    with open_regular(path, largest=largest) as file:
        size = os.fstat(file.fileno()).st_size
        return file.read(min(largest, max(size, _LEAST)))  # Python allocates what is asked for


def regular_size(path: Path) -> int:
    """The size of a file in bytes.

    Raises:
        OSError: it is not a regular file, or does not exist.
    """
    status = path.stat()
    _check(path, status, largest=sys.maxsize)
    return status.st_size


def _check(path: Path, status: os.stat_result, largest: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path.name} is not a regular file")
    if status.st_size > largest:
        raise OSError(
            f"{path.name} is too large: {status.st_size} bytes, at most {largest} are possible"
        )
