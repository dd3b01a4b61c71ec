"""Output directories that can be resumed: the same command resumes, a different one is refused.

Every command that writes a directory calls `opened`, which locks it and decides whether the output
is new, resumed, finished or refused.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from distlstm.atomic import TEMPORARY_PREFIX
from distlstm.errors import RunError, UserError
from distlstm.json_text import read_json, to_json, write_json
from distlstm.regular_file import read_regular

LOCK_FILE = "_lock"
_EMPTYING = "emptying"

Identity = dict[str, Any]
"""Two commands are the same if their identities are equal: flat tables of JSON values."""


def flat(tables: Mapping[str, Any], prefix: str = "") -> Identity:
    """Flatten nested tables into one, with dotted names and JSON values."""
    identity: Identity = {}
    for name, value in tables.items():
        if isinstance(value, Mapping):
            identity |= flat(value, f"{prefix}{name}.")
        else:
            identity[prefix + name] = json.loads(to_json(value))
    return identity


class State(Enum):
    """What a command finds in its output directory."""

    NEW = "new"
    """Nothing, or content that `--overwrite` replaces."""
    RESUMED = "resumed"
    """The unfinished work of the same command."""
    FINISHED = "finished"
    """The finished work of the same command."""


@dataclass(frozen=True, kw_only=True)
class Output:
    """An output directory, and how it records its command and whether that has finished."""

    path: Path
    marks: tuple[str, ...]
    """File names; such an output has at least one of them. Other directories are refused."""
    identity: Identity
    """Identity of this command."""
    recorded: Callable[[], Identity | None]
    """Reads the identity of the command that began the output; None if none is recorded."""
    is_finished: Callable[[], bool]
    """Whether nothing is left to do; called only if the identities are equal."""
    begin: Callable[[], None] = lambda: None
    """Records the identity of this command in a new output."""
    is_replaced_at_end: bool = False
    """With `--overwrite`, the old content stays until the command replaces it at its end."""


def decide(output: Output) -> State:
    """Decide whether a command starts anew, resumes, or has nothing to do.

    Raises:
        UserError: another command began the output (the message lists the differences), or it is
            not an output of this kind.
    """
    check_kind(output.path, output.marks)
    recorded = output.recorded()
    if recorded is None:
        return State.NEW
    check_same(output.path, recorded, output.identity)
    return State.FINISHED if output.is_finished() else State.RESUMED


@contextmanager
def opened(output: Output, *, overwrite: bool) -> Iterator[State]:
    """Lock an output for a block, and yield what the command has to do with it.

    With `overwrite`, the old content is removed first. If the block raises a UserError and the
    directory was empty before, it is emptied again.

    Raises:
        UserError: see `decide`; or another command is at work on the output.
        RunError: the output cannot be created or written.
    """
    check_kind(output.path, output.marks)
    with sole_use(output.path):
        if (overwrite and not output.is_replaced_at_end) or _is_being_emptied(output.path):
            _empty(output.path)
        is_new = _is_empty(output.path)
        replaced = overwrite and output.is_replaced_at_end
        try:
            state = State.NEW if replaced else decide(output)
            if state is State.NEW:
                with writing(output.path):
                    output.begin()
            yield state
        except UserError:
            if is_new:
                _empty(output.path)
            raise


def check_kind(path: Path, marks: tuple[str, ...]) -> None:
    """Check that an output directory is new or empty, or has one of `marks`.

    Raises:
        UserError: the directory has other content.
    """
    if not path.exists() or (path.is_dir() and _is_empty(path)) or _is_being_emptied(path):
        return
    if not path.is_dir() or not any((path / mark).exists() for mark in marks):
        raise UserError(f"{path} exists and was not made by this command. Choose another --output.")


@contextmanager
def sole_use(path: Path) -> Iterator[None]:
    """Lock an output directory for a block; the directory is created if it is missing.

    The lock belongs to the operating system: it ends with its process, even if that is killed.

    Raises:
        UserError: another command is at work on the directory.
        RunError: the directory cannot be created or written.
    """
    is_created = not path.exists()
    with writing(path):
        path.mkdir(parents=True, exist_ok=True)
        file = _lock(path / LOCK_FILE)
    try:
        yield
    finally:
        with suppress(OSError):
            if _is_at(file, path / LOCK_FILE):
                (path / LOCK_FILE).unlink()
        os.close(file)
        if is_created:
            with suppress(OSError):  # it is not empty, or another command's by now
                path.rmdir()


def _lock(path: Path) -> int:
    """Lock a file and return its descriptor; tries again if another process removed the file."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, path):
                return file
        except BlockingIOError as error:
            os.close(file)
            raise UserError(
                f"Another command is at work on {path.parent}. Wait for it to end, or choose "
                "another --output."
            ) from error
        os.close(file)


def is_in_use(path: Path) -> bool:
    """Whether a command is at work on an output directory."""
    try:
        file = os.open(path / LOCK_FILE, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(file)
    return False


def _is_at(file: int, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of a block that writes to an output directory into advice for the user.

    Raises:
        RunError: a file cannot be written, for example because the disk is full.
    """
    try:
        yield
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise RunError(
            f"A file in {path} cannot be written: {reason}. Free some space or make the directory "
            "writable, and run the same command again. Finished work is kept."
        ) from error


def _is_empty(path: Path) -> bool:
    """Whether an output has only the lock, and files that a killed command had begun to write."""
    return all(map(_is_nothing, path.iterdir()))


def _is_nothing(entry: Path) -> bool:
    if entry.is_dir() and not entry.is_symlink():
        return entry.name != LOCK_FILE and _is_empty(entry)
    return entry.name == LOCK_FILE or entry.name.startswith(TEMPORARY_PREFIX)


def _empty(path: Path) -> None:
    """Remove the content of a locked output.

    If the command is killed meanwhile, its note in the lock file makes the next command finish the
    removal. Otherwise the rest of the content could be taken for an output.
    """
    lock = path / LOCK_FILE
    lock.write_text(_EMPTYING)
    for entry in [entry for entry in path.iterdir() if entry.name != LOCK_FILE]:
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
    lock.write_text("")


def _is_being_emptied(path: Path) -> bool:
    try:
        return read_regular(path / LOCK_FILE).decode() == _EMPTYING
    except OSError:
        return False


def check_same(path: Path, recorded: Identity, identity: Identity) -> None:
    """Check that an output was begun by the same command.

    Raises:
        UserError: it was not; the message lists the differences.
    """
    names = sorted(name for name in recorded | identity if recorded.get(name) != identity.get(name))
    if names:
        shown = "; ".join(
            f"{name} was {recorded.get(name)!r}, is {identity.get(name)!r}" for name in names[:5]
        )
        more = f" and {len(names) - 5} more" if len(names) > 5 else ""
        raise UserError(
            f"{path} was begun by a different command: {shown}{more}. "
            f"{_earlier_snapshot(recorded, names)}"
            "Choose another --output, or replace this one with --overwrite."
        )


def _earlier_snapshot(recorded: Identity, names: Sequence[str]) -> str:
    """Advice for a table that has changed since an output was begun."""
    of_tables = (name for name in names if name.partition(".")[0] == "snapshots")
    earlier = list(flat({name: recorded.get(name) or {} for name in of_tables}).values())
    if len(earlier) != 1:
        return ""  # there is one --snapshot for all tables
    return f"To finish it with the table as it was, add --snapshot {earlier[0]}. "


def record_identity(path: Path, identity: Identity) -> None:
    """Write a command's identity, or a record that contains it, to a JSON file."""
    write_json(path, identity)


def read_identity(path: Path) -> Identity | None:
    """Read an identity; None if the file is missing or unreadable."""
    try:
        return dict(read_json(path))
    except (OSError, ValueError):
        return None
