"""MODEL directories that a command reads, wherever they are."""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distlstm.errors import UserError
from distlstm.json_text import parse_json
from distlstm.model.metadata import (
    METADATA_FILE,
    check_format,
    check_sizes,
    file_names,
    load_metadata,
    model_fingerprint,
    read_metadata,
)
from distlstm.stages.run.output import reading
from distlstm.storage import (
    Directory,
    LocalStorage,
    ObjectStorage,
    UnreachableError,
    local_copy,
)


@contextmanager
def model_directory(storage: Directory) -> Iterator[Path]:
    """A directory of this machine with the files of a MODEL.

    Of one in an object store, it is a copy that is fetched once for each node. Errors in the block
    name the model where it is.

    Raises:
        UserError: it is not a model, or cannot be read.
    """
    path = storage.path if isinstance(storage, LocalStorage) else _copy(storage)
    with _named(path, storage):
        yield path


def metadata_of(storage: Directory) -> dict[str, Any]:
    """See `load_metadata`."""
    with model_directory(storage) as path:
        return load_metadata(path)


def fingerprint_at(storage: Directory, metadata: Mapping[str, Any]) -> str:
    """See `model_fingerprint`."""
    with model_directory(storage) as path:
        return model_fingerprint(path, metadata)


def _copy(storage: ObjectStorage) -> Path:
    with reading(storage):
        try:
            content = storage.read(METADATA_FILE)
        except FileNotFoundError as error:
            raise UserError(
                f"{storage.location} is not a model directory: it has no {METADATA_FILE}."
            ) from error
        return local_copy(
            storage,
            [METADATA_FILE, *_checked_names(storage, content)],
            key=f"model-{hashlib.sha256(content).hexdigest()[:32]}",
            check=lambda path: _check(path, storage),
        )


def _checked_names(storage: ObjectStorage, content: bytes) -> list[str]:
    """The files of a model besides `model.json`, whose sizes were checked before any is fetched."""
    try:
        metadata = parse_json(content)
    except ValueError as error:
        raise UserError(
            f"The model directory {storage.location} is damaged: {METADATA_FILE}: {error}."
        ) from error
    check_format(metadata, storage.location)
    try:
        names = file_names(metadata)
        check_sizes({name: storage.entry(name).size for name in names}, metadata)
    except UnreachableError:
        raise
    except (UserError, KeyError, TypeError, ValueError, OverflowError, OSError) as error:
        raise UserError(f"The model directory {storage.location} is damaged: {error}.") from error
    return names


def _check(path: Path, storage: Directory) -> None:
    with _named(path, storage):
        model_fingerprint(path, read_metadata(path))


@contextmanager
def _named(path: Path, storage: Directory) -> Iterator[None]:
    """Name the model where it is, instead of its copy, in the errors of a block."""
    try:
        yield
    except UserError as error:
        raise UserError(str(error).replace(str(path), storage.location)) from error
