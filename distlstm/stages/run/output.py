"""Outputs that carry on: the same command resumes, a changed one is refused.

`opened` decides it for every command that writes a directory: new, resumed, finished or refused.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from distlstm.atomic import write_text
from distlstm.errors import RunError, UserError

LOCK_FILE = "_lock"
_EMPTYING = "emptying"

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


class State(Enum):
    """What a command finds at its output."""

    NEW = "new"
    """Nothing, or what `--overwrite` replaces."""
    RESUMED = "resumed"
    """The unfinished work of the same command."""
    FINISHED = "finished"
    """The finished work of the same command."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """An output directory, and how it records which command began it and how far that came."""

    path: Path
    marks: tuple[str, ...]
    """Names of which such an output has at least one. A directory without any is not touched."""
    identity: Identity
    """Of this command."""
    recorded: Callable[[], Identity | None]
    """Reads the identity of the command that began the output; None if none is recorded."""
    is_finished: Callable[[], bool]
    """Whether nothing is left to do; asked only if the identities agree."""
    begin: Callable[[], None] = lambda: None
    """Records the identity of this command in a new output."""
    is_replaced_at_end: bool = False
    """`--overwrite` keeps the old content, which the command replaces once the new one is there."""


def decide(output: Output) -> State:
    """Whether a command starts anew, carries on, or has nothing to do.

    Raises:
        UserError: the output belongs to another command, which is named by what differs, or is not
            an output of this kind.
    """
    check_kind(output.path, output.marks)
    recorded = output.recorded()
    if recorded is None:
        return State.NEW
    check_same(output.path, recorded, output.identity)
    return State.FINISHED if output.is_finished() else State.RESUMED


@contextmanager
def opened(output: Output, *, overwrite: bool) -> Iterator[State]:
    """Lock an output for a block, and decide what the command does with it.

    With `overwrite`, what is there is removed first. If the block raises a UserError, what it began
    anew is removed again.

    Raises:
        UserError: see `decide`; or another command is at work on the output.
        RunError: the output cannot be made or written.
    """
    check_kind(output.path, output.marks)
    with sole_use(output.path):
        if (overwrite and not output.is_replaced_at_end) or _is_being_emptied(output.path):
            _empty(output.path)
        is_empty = not _content(output.path)
        replaced = overwrite and output.is_replaced_at_end
        state = State.NEW if replaced else decide(output)
        if state is State.NEW:
            with writing(output.path):
                output.begin()
        try:
            yield state
        except UserError:
            if is_empty:
                shutil.rmtree(output.path, ignore_errors=True)
            raise


def check_kind(path: Path, marks: tuple[str, ...]) -> None:
    """Check that an output directory is new, or of a kind that has one of `marks`.

    Raises:
        UserError: the directory holds something else.
    """
    if not path.exists() or (path.is_dir() and not _content(path)) or _is_being_emptied(path):
        return
    if not path.is_dir() or not any((path / mark).exists() for mark in marks):
        raise UserError(f"{path} exists and was not made by this command. Choose another --output.")


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


def _content(path: Path) -> list[Path]:
    return [entry for entry in path.iterdir() if entry.name != LOCK_FILE]


def _empty(path: Path) -> None:
    """Remove the content of a locked output.

    A note in the lock file, which a killed command leaves behind, makes the next one go on with it:
    what is left of the content must not pass for an output.
    """
    lock = path / LOCK_FILE
    lock.write_text(_EMPTYING)
    for entry in _content(path):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    lock.write_text("")


def _is_being_emptied(path: Path) -> bool:
    try:
        return (path / LOCK_FILE).read_text() == _EMPTYING
    except OSError:
        return False


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


def read_identity(path: Path) -> Identity | None:
    """What `record_identity` kept; None if there is none, or none that can be read."""
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None
