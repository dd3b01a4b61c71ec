"""`model.json`: the metadata of a model, which can be read without loading the model or torch.

It is written last, and lists the sizes and digests of the other files of a MODEL directory.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distlstm import __version__
from distlstm.config import ExperimentConfig, read_config
from distlstm.errors import UserError
from distlstm.regular_file import open_regular, read_regular
from distlstm.text.vocabulary import LARGEST_VOCABULARY_FILE

FORMAT_VERSION = 2
METADATA_FILE = "model.json"
WEIGHTS_FILE, LINEAR_FILE = "model.safetensors", "wide.safetensors"
VOCABULARY_FILE = "vocabulary.txt"
_LARGEST_METADATA = 64 * 2**20
_LARGEST_HEADER = 2**20
"""Bytes of the names and shapes at the start of a weight file."""
_MOST_NGRAMS = 2**22
"""Most features of a linear model besides the tokens: `ngrams.NUM_BUCKETS`."""
_MOST_BLOCKS, _MOST_POOLINGS = 4, 4  # an LSTM has four blocks of weights
_UNSAID_TEXT = {"normalization": "none"}
"""Text settings of models that are older than the setting."""


def load_metadata(path: Path) -> dict[str, Any]:
    """Read `model.json` and check its format version.

    Raises:
        UserError: it is missing, too large, not a regular file, not JSON, or of another format
            version.
    """
    file = path / METADATA_FILE
    try:
        metadata = json.loads(read_regular(file, largest=_LARGEST_METADATA).decode("utf-8"))
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
    except (UserError, KeyError, TypeError, ValueError, OSError) as error:
        raise UserError(f"The model directory {path} is damaged: {error}.") from error


def fingerprint_of(metadata: Mapping[str, Any]) -> str:
    """The digest of all that determines a model's predictions.

    Raises:
        KeyError: an entry is missing.
    """
    decisive = [metadata[key] for key in ("files", "labels", "text", "model", "temperature")]
    decisive += [metadata[key] for key in ("kind", "thresholds", "cascade") if key in metadata]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def stored_config(metadata: Mapping[str, Any]) -> ExperimentConfig:
    """The config of the training that wrote a model.

    Raises:
        UserError, KeyError, TypeError: it is incomplete or invalid.
    """
    tables = {key: metadata[key] for key in ("seed", "text", "model", "training")}
    tables["text"] = {**_UNSAID_TEXT, **tables["text"]}
    return read_config(tables)


def digest_of(path: Path) -> dict[str, Any]:
    """Size and digest of a file, as in `model.json`."""
    size = path.stat().st_size
    with open_regular(path, largest=size) as file:
        return {"bytes": size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def check_digests(path: Path, metadata: Mapping[str, Any]) -> None:
    """Check that the files of a model have not changed since it was written.

    Nothing is read before all files are known to be regular, and no larger than their shapes allow.

    Raises:
        UserError, KeyError, TypeError, ValueError, OSError: a file has changed, is larger than
            possible or cannot be read.
    """
    files = metadata["files"]
    names = (WEIGHTS_FILE, VOCABULARY_FILE, *(name for name in files if name == LINEAR_FILE))
    largest = _largest_sizes(path, metadata)
    for name in names:
        _check_size(path / name, files[name]["bytes"], largest[name])
    for name in names:
        if digest_of(path / name) != files[name]:
            raise ValueError(f"{name} has changed since it was written")


def _largest_sizes(path: Path, metadata: Mapping[str, Any]) -> dict[str, int]:
    """The largest possible size of each file, by the config, the labels and the vocabulary."""
    num_labels = len(metadata["labels"])
    vocab_size = (path / VOCABULARY_FILE).stat().st_size // 2 + 1  # a token and its line feed
    features = vocab_size + _MOST_NGRAMS
    return {
        VOCABULARY_FILE: LARGEST_VOCABULARY_FILE,
        WEIGHTS_FILE: _LARGEST_HEADER
        + 4 * _most_weights(stored_config(metadata), vocab_size, num_labels),
        LINEAR_FILE: _LARGEST_HEADER + 4 * (features * (num_labels + 2) + num_labels),
    }


def _most_weights(config: ExperimentConfig, vocab_size: int, num_labels: int) -> int:
    """An upper bound of the number of weights of the classifier, without torch."""
    sizes = config.model
    both = 2 * sizes.hidden_dim
    layer = both * _MOST_BLOCKS * (max(sizes.embedding_dim, both) + sizes.hidden_dim + 2)
    pooled = _MOST_POOLINGS * both + 1
    pooling = pooled * (both + 1)
    return (
        vocab_size * sizes.embedding_dim + sizes.num_layers * layer + pooling + num_labels * pooled
    )


def _check_size(path: Path, expected: int, largest: int) -> None:
    with open_regular(path, largest=largest) as file:
        size = file.seek(0, 2)
    if size != expected:
        raise ValueError(f"{path.name} has {size} bytes instead of {expected}")
