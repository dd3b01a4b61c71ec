"""Outputs that carry on: the same command resumes, a changed one is refused."""

import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distlstm.atomic import write_text
from distlstm.errors import RunError, UserError

LOCK_FILE = "_lock"

Identity = dict[str, Any]
"""What makes two commands the same: a flat table of names and plain values."""


def flat(tables: Mapping[str, Any], prefix: str = "") -> Identity:
    """Nested tables as one, with dotted names and JSON values."""
    identity: Identity = {}
    for name, value in tables.items():
        if isinstance(value, Mapping):
            identity |= flat(value, f"{prefix}{name}.")
        else:
            identity[prefix + name] = json.loads(json.dumps(value))
    return identity


def check_output(path: Path, *, marks: tuple[str, ...], overwrite: bool) -> None:
    """See that an output directory is new or one of ours; with `overwrite`, empty it.

    Args:
        path: the directory.
        marks: names of which our kind of output holds at least one.
        overwrite: remove what is there.

    Raises:
        UserError: the directory holds something else, which is never touched.
    """
    if not path.exists() or (path.is_dir() and {p.name for p in path.iterdir()} <= {LOCK_FILE}):
        return
    if not path.is_dir() or not any((path / mark).exists() for mark in marks):
        raise UserError(f"{path} exists and was not made by this command. Choose another --output.")
    if overwrite:
        shutil.rmtree(path)


@contextmanager
def sole_use(path: Path) -> Iterator[None]:
    """Hold an output directory, which is made if need be, for the time of a block.

    The lock is the operating system's: it ends with the process that holds it, however that ends.

    Raises:
        UserError: another command is at work on it.
        RunError: it cannot be made or written.
    """
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        file = _lock(path / LOCK_FILE)
    try:
        yield
    finally:
        (path / LOCK_FILE).unlink(missing_ok=True)
        os.close(file)


def _lock(path: Path) -> int:
    """A locked descriptor of a file that is still the one at its path."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                return file
        except BlockingIOError as error:
            os.close(file)
            raise UserError(
                f"Another command is at work on {path.parent}. Wait for it to end, or choose "
                "another --output."
            ) from error
        os.close(file)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say of what cannot be written into an output directory what the user can do.

    Raises:
        RunError: the operating system refused: the disk is full, say.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise RunError(
            f"A file in {path} cannot be written: {reason}. Make room there, or make it writable, "
            "and run the same command again: what is finished is kept."
        ) from error


def remove_content(path: Path) -> None:
    """Empty an output directory that is held."""
    for entry in path.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        elif entry.name != LOCK_FILE:
            entry.unlink()


def check_same(path: Path, recorded: Identity, identity: Identity) -> None:
    """Refuse to carry on with what another command began.

    Raises:
        UserError: says what differs.
    """
    names = sorted(name for name in recorded | identity if recorded.get(name) != identity.get(name))
    if names:
        shown = "; ".join(
            f"{name} was {recorded.get(name)!r}, is {identity.get(name)!r}" for name in names[:5]
        )
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise UserError(
            f"{path} was begun by another command: {shown}{more}. "
            "Choose another --output, or replace it with --overwrite."
        )


def record_identity(path: Path, identity: Identity) -> None:
    """Keep a run's identity in a JSON file."""
    write_text(path, json.dumps(identity, ensure_ascii=False, indent=1) + "\n")


def withdraw(path: Path) -> None:
    """Remove an output that was begun by a command whose data turned out to be unusable."""
    shutil.rmtree(path, ignore_errors=True)


def read_identity(path: Path) -> Identity | None:
    """What `record_identity` kept; None if there is none, or none that can be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
