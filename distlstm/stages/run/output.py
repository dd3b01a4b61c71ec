"""Output directories that can be resumed: the same command resumes, a different one is refused.

Every command that writes a directory calls `opened`, which locks it and decides whether the output
is new, resumed, finished or refused.
"""

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from distlstm.errors import RunError, UserError
from distlstm.json_text import read_json, to_json, write_json
from distlstm.stages.run.events import Event, Note, OnEvent
from distlstm.storage import Directory, Lease, LocalStorage, WorkingCopy
from distlstm.storage.lease import DURATION_SECONDS

LOCK_FILE = "_lock"
_EMPTYING_FILE = "_emptying"
"""There while the content of an output is removed: the rest must not be taken for an output."""

_A_MOMENT = 0.05
"""Seconds."""

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

    storage: Directory
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
    copy: WorkingCopy | None = None
    """Where `recorded` reads and `begin` writes; None if they use the storage itself."""
    needed: tuple[str, ...] = ()
    """What is fetched into the copy: files, and directories with a final slash."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a command has to do with an output that it has locked."""

    state: State
    check: Callable[[], None]
    """Raises a RunError if the lock was lost: to be called before what must not happen twice."""
    copy: WorkingCopy | None = None

    def publish(self) -> None:
        """Write what has changed in the working copy to the storage."""
        if self.copy is not None:
            self.check()
            with writing(self.copy.storage):
                self.copy.publish()


def decide(output: Output) -> State:
    """Decide whether a command starts anew, resumes, or has nothing to do.

    Raises:
        UserError: another command began the output (the message lists the differences), or it is
            not an output of this kind.
    """
    check_kind(output.storage, output.marks)
    recorded = output.recorded()
    if recorded is None:
        return State.NEW
    check_same(output.storage, recorded, output.identity)
    return State.FINISHED if output.is_finished() else State.RESUMED


def _ignore(event: Event) -> None:
    """Nobody reads why a command waits."""


@contextmanager
def opened(output: Output, *, overwrite: bool, on_event: OnEvent = _ignore) -> Iterator[Work]:
    """Lock an output for a block, and yield what the command has to do with it.

    With `overwrite`, the old content is removed first. If the block raises a UserError and the
    directory was empty before, it is emptied again. A command that has to see whether the one that
    locked the output is alive reports that it waits.

    Raises:
        UserError: see `decide`; or another command is at work on the output, or it cannot be read.
        RunError: the output cannot be created or written.
    """
    with reading(output.storage):
        check_kind(output.storage, output.marks)
    with sole_use(output.storage, on_event=on_event) as check:
        with reading(output.storage):
            if (overwrite and not output.is_replaced_at_end) or _is_being_emptied(output.storage):
                _empty(output.storage)
            is_new = output.storage.is_empty(ignored=(LOCK_FILE,))
        try:
            work = _begun(output, check, is_replaced=overwrite and output.is_replaced_at_end)
            yield work
        except UserError:
            if is_new:
                _empty(output.storage)
            raise


def _begun(output: Output, check: Callable[[], None], *, is_replaced: bool) -> Work:
    with reading(output.storage):
        if output.copy is not None:
            output.copy.fetch(output.needed)
        state = State.NEW if is_replaced else decide(output)
    work = Work(state=state, check=check, copy=output.copy)
    if state is State.NEW:
        with writing(output.storage):
            output.begin()
        work.publish()
    return work


def check_kind(storage: Directory, marks: tuple[str, ...]) -> None:
    """Check that an output directory is new or empty, or has one of `marks`.

    Raises:
        UserError: the directory has other content.
    """
    if storage.is_empty(ignored=(LOCK_FILE,)) or _is_being_emptied(storage):
        return
    if not any(storage.exists(mark) for mark in marks):
        raise UserError(
            f"{storage.location} exists and was not made by this command. Choose another --output."
        )


@contextmanager
def sole_use(storage: Directory, *, on_event: OnEvent = _ignore) -> Iterator[Callable[[], None]]:
    """Lock an output directory for a block; yields a function that checks the lock.

    A local directory is created if it is missing. Its lock belongs to the operating system, and
    ends with its process, even if that is killed. In an object store, the lock is a lease.

    Raises:
        UserError: another command is at work on the directory.
        RunError: the directory cannot be created or written.
    """
    if isinstance(storage, LocalStorage):
        with _file_lock(storage.path):
            yield lambda: None
        return
    lease = Lease(storage, LOCK_FILE, on_wait=lambda text: on_event(Note(text)))
    with writing(storage):
        lease.acquire()
    try:
        yield lease.check
    finally:
        lease.release()


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    is_created = not path.exists()
    with writing(LocalStorage(path)):
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
    """Lock a file and return its descriptor; tries again if another process removed the file.

    A process that only asks whether it is locked (`is_in_use`) locks it for a moment, so this tries
    once more after a moment.
    """
    is_second_try = False
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(file, path):
                return file
        except BlockingIOError as error:
            if is_second_try:
                os.close(file)
                raise UserError(
                    f"Another command is at work on {path.parent}. Wait for it to end, or choose "
                    "another --output."
                ) from error
            is_second_try = True
            time.sleep(_A_MOMENT)
        os.close(file)


def is_in_use(storage: Directory, *, patience: float = DURATION_SECONDS) -> bool:
    """Whether a command is at work on an output directory.

    A lease in an object store is watched for `patience` seconds, or until its holder renews it.
    """
    if not isinstance(storage, LocalStorage):
        return Lease(storage, LOCK_FILE, duration=patience).is_held()
    try:
        file = os.open(storage.path / LOCK_FILE, os.O_RDONLY | os.O_NONBLOCK)
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
def reading(storage: Directory) -> Iterator[None]:
    """Turn an OSError of a block that reads an output before work starts into a UserError."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{storage.location} cannot be read: {_reason(error)}.") from error


@contextmanager
def writing(storage: Directory) -> Iterator[None]:
    """Turn an OSError of a block that writes to an output directory into advice for the user.

    Raises:
        RunError: a file cannot be written, for example because the disk is full.
    """
    try:
        yield
    except OSError as error:
        advice = (
            "Free some space or make the directory writable, and run the same command again."
            if storage.is_local
            else "Run the same command again when the object store accepts it."
        )
        raise RunError(
            f"A file in {storage.location} cannot be written: {_reason(error)}. {advice} Finished "
            "work is kept."
        ) from error


def _reason(error: OSError) -> str:
    return (os.strerror(error.errno) if error.errno else str(error)).rstrip(".")


def _empty(storage: Directory) -> None:
    """Remove the content of a locked output.

    If the command is killed meanwhile, a file makes the next command finish the removal.
    """
    storage.write(_EMPTYING_FILE, "")
    storage.delete_all(kept=(LOCK_FILE, _EMPTYING_FILE))
    storage.delete([_EMPTYING_FILE])


def _is_being_emptied(storage: Directory) -> bool:
    return storage.exists(_EMPTYING_FILE)


def check_same(storage: Directory, recorded: Identity, identity: Identity) -> None:
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
            f"{storage.location} was begun by a different command: {shown}{more}. "
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
