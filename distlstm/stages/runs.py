"""`distlstm runs`: finds the outputs of commands below a directory, and reads their records.

It looks at each directory once and reads one small file of each output. It goes into the outputs
only where others may be: never into the parts of a prediction, checkpoints or encoded corpora.
"""

import time
from collections.abc import Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from distlstm.errors import UserError
from distlstm.stages.listing.readers import (
    DAMAGES,
    PREDICTIONS,
    READERS,
    UNFINISHED,
    Reader,
)
from distlstm.stages.listing.record import RunList, RunRecord, State
from distlstm.stages.run.files import BEST, CHECKPOINTS, MANIFEST_FILE, RUN_FILE, SUCCESS_FILE
from distlstm.stages.run.output import LOCK_FILE, is_in_use, reading
from distlstm.storage import Directory, Entry, UnreachableError

_LOOKED_AT_ONCE = 16
_PARTS_OF_A_RUN = (CHECKPOINTS, BEST, f"{BEST}.new", "ray", "events")
_CORPUS = "corpus-"
_PATIENCE = 6.0
"""Seconds in which a living command renews its lease."""
_LONG_AGO = 600.0
"""Seconds after which a lease that was not renewed is not watched any more."""


@dataclass(frozen=True)
class _Place:
    """A directory below the one that is listed."""

    name: str
    storage: Directory


@dataclass(frozen=True)
class _Look:
    """What is in a directory."""

    run: RunRecord | None = None
    below: Iterable[str] = ()
    """Names of the subdirectories to look at."""
    unreadable: str | None = None


def runs(directory: Directory) -> RunList:
    """The models, language models, studies, evaluations and predictions in or below a directory.

    Raises:
        UserError: there is no such directory, or it cannot be read.
    """
    found, unreadable, places = [], [], [_Place(".", directory)]
    with reading(directory), ThreadPoolExecutor(_LOOKED_AT_ONCE) as threads:
        _check_exists(directory)
        while places:
            following = []
            for place, look in zip(places, threads.map(_looked, places), strict=True):
                found += [look.run] if look.run else []
                unreadable += [look.unreadable] if look.unreadable else []
                following += [_below(place, name) for name in look.below]
            places = following
    newest = sorted(found, key=lambda run: (-run.when.timestamp(), run.name))
    return RunList(path=directory.location, runs=_with_models(newest), unreadable=unreadable)


def _check_exists(directory: Directory) -> None:
    if not any(directory.children()):
        is_there = directory.is_local  # an empty directory; `children` raised if there is none
        if not is_there:
            raise UserError(f"There is nothing at {directory.location}.")


def _below(place: _Place, name: str) -> _Place:
    above = "" if place.name == "." else f"{place.name}/"
    return _Place(f"{above}{name}", place.storage.below(name))


def _looked(place: _Place) -> _Look:
    storage = place.storage
    try:
        if storage.exists(MANIFEST_FILE):  # asked first, as its parts may be very many
            names = [MANIFEST_FILE, SUCCESS_FILE, LOCK_FILE, PREDICTIONS.report]
            files = {name: storage.entry(name) for name in names if storage.exists(name)}
            return _Look(_record(place, PREDICTIONS, files))
        directories, entries = storage.children()
        files = {entry.name: entry for entry in entries}
        reader = next((reader for reader in READERS if files.keys() & set(reader.marks)), None)
        if reader is None and CHECKPOINTS in directories and storage.exists(RUN_FILE):
            reader, files[RUN_FILE] = UNFINISHED, storage.entry(RUN_FILE)
    except UnreachableError:
        raise
    except OSError:
        if place.name == ".":
            raise
        return _Look(unreadable=place.name)
    visible = [name for name in directories if not name.startswith((".", "_"))]
    if reader is None:
        return _Look(below=visible)
    other = [n for n in visible if n not in _PARTS_OF_A_RUN and not n.startswith(_CORPUS)]
    return _Look(_record(place, reader, files), below=other)


def _record(place: _Place, reader: Reader, files: Mapping[str, Entry]) -> RunRecord:
    mark = next(files[name] for name in reader.marks if name in files)
    record = RunRecord(
        name=place.name,
        location=place.storage.location,
        kind=reader.kind,
        state="damaged",
        when=datetime.fromtimestamp(mark.modified / 1e9, UTC),
        report=reader.report if reader.report in files else "",
    )
    try:
        content = dict(reader.read(place.storage, files.keys()))
        is_finished = content.pop("finished")
    except UnreachableError:
        raise
    except (*DAMAGES, OSError) as error:
        return replace(record, problem=f"{type(error).__name__}: {error}")
    state: State = "finished" if is_finished else "unfinished"
    if LOCK_FILE in files and _is_running(place.storage, files[LOCK_FILE]):
        state = "running"
    return replace(record, **content, state=state)


def _is_running(storage: Directory, lock: Entry) -> bool:
    """Whether a command has the lock; an old lease is not watched, as nobody renews it."""
    if not storage.is_local and time.time() - lock.modified / 1e9 > _LONG_AGO:
        return False
    return is_in_use(storage, patience=_PATIENCE)


def _with_models(records: Collection[RunRecord]) -> list[RunRecord]:
    """Evaluations and predictions name their model if it is listed, too."""
    names = {run.fingerprint: run.name for run in records if run.fingerprint}
    return [replace(run, model=names.get(run.model, run.model)) for run in records]
