"""`model.json`: the metadata of a model, which can be read without loading the model or torch.

It is written last, and lists the sizes and digests of the other files of a MODEL directory.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distlstm import __version__
from distlstm.errors import UserError

FORMAT_VERSION = 2
METADATA_FILE = "model.json"
WEIGHTS_FILE, LINEAR_FILE = "model.safetensors", "wide.safetensors"
VOCABULARY_FILE = "vocabulary.txt"
_LARGEST_METADATA = 64 * 2**20


def load_metadata(path: Path) -> dict[str, Any]:
    """Read `model.json` and check its format version.

    Raises:
        UserError: it is missing, not JSON, or has another format version.
    """
    file = path / METADATA_FILE
    try:
        if file.stat().st_size > _LARGEST_METADATA:
            raise UserError(f"{file} is too large for the metadata of a model: more than 64 MiB.")
        metadata = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is not a model directory: it has no {METADATA_FILE}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"The model directory {path} is damaged: {file.name}: {error}.") from error
    found = metadata.get("format_version") if isinstance(metadata, dict) else None
    if found != FORMAT_VERSION:
        raise UserError(
            f"{path} has format version {found!r}, but this distlstm ({__version__}) reads version "
            f"{FORMAT_VERSION}. Use the version of distlstm that wrote it, or train again."
        )
    return dict(metadata)


def gives_label_sets(metadata: Mapping[str, Any]) -> bool:
    """Whether the model gives each row a set of labels, as in `LabelKind.gives_sets`."""
    return metadata.get("kind") == "multi"


def model_fingerprint(path: Path, metadata: Mapping[str, Any]) -> str:
    """Check the files of a MODEL directory against their digests; return its fingerprint.

    Raises:
        UserError: the directory is damaged.
    """
    try:
        check_digests(path, metadata)
        return fingerprint_of(metadata)
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"The model directory {path} is damaged: {error}.") from error


def fingerprint_of(metadata: Mapping[str, Any]) -> str:
    """The digest of all that determines a model's predictions.

    Raises:
        KeyError: an entry is missing.
    """
    decisive = [metadata[key] for key in ("files", "labels", "text", "model", "temperature")]
    decisive += [metadata[key] for key in ("kind", "thresholds", "cascade") if key in metadata]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def digest_of(path: Path) -> dict[str, Any]:
    """Size and digest of a file, as in `model.json`."""
    with path.open("rb") as file:
        return {
            "bytes": path.stat().st_size,
            "sha256": hashlib.file_digest(file, "sha256").hexdigest(),
        }


def check_digests(path: Path, metadata: Mapping[str, Any]) -> None:
    """Check that the files of a model have not changed since it was written.

    Raises:
        ValueError, OSError: a file has changed or cannot be read.
    """
    files = metadata["files"]
    for name in (WEIGHTS_FILE, VOCABULARY_FILE, *(name for name in files if name == LINEAR_FILE)):
        _check_digest(path / name, files[name])


def _check_digest(path: Path, expected: dict[str, Any]) -> None:
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise ValueError(f"{path.name} has {size} bytes instead of {expected['bytes']}")
    if digest_of(path) != expected:
        raise ValueError(f"{path.name} has changed since it was written")
