"""Opens the files of a model, which may come from a stranger: it refuses FIFOs and devices."""

import os
import stat
from io import BufferedReader
from pathlib import Path

_NOT_BLOCKING = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: Path, *, largest: int) -> BufferedReader:
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


def read_regular(path: Path, *, largest: int) -> bytes:
    """Read such a file."""
    with open_regular(path, largest=largest) as file:
        return file.read(largest)


def _check(path: Path, status: os.stat_result, largest: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(f"{path.name} is not a regular file")
    if status.st_size > largest:
        raise OSError(
            f"{path.name} is too large: {status.st_size} bytes, at most {largest} are possible"
        )
