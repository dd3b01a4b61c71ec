"""`model.json`: the metadata of a model, which can be read without loading the model or torch.

It is written last, and lists the sizes and digests of the other files of a MODEL directory.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from distlstm import __version__
from distlstm.config import ExperimentConfig, read_config
from distlstm.errors import UserError
from distlstm.json_text import read_json
from distlstm.regular_file import open_regular, regular_size
from distlstm.text.labels import LabelSet
from distlstm.text.vocabulary import LARGEST_VOCABULARY_FILE, Vocabulary

FORMAT_VERSION = 2
METADATA_FILE = "model.json"
WEIGHTS_FILE, LINEAR_FILE = "model.safetensors", "wide.safetensors"
VOCABULARY_FILE = "vocabulary.txt"
LANGUAGE = "language"
"""The kind of a language model; that of a classifier is about its labels."""
_LARGEST_METADATA = 64 * 2**20
_LARGEST_HEADER = 2**20
"""Bytes of the names and shapes at the start of a weight file."""
_MOST_NGRAMS = 2**22
"""Most features of a linear model besides the tokens: `ngrams.NUM_BUCKETS`."""
_LARGEST_WEIGHT = 1e15
_TEMPERATURES = (1e-3, 1e3)
"""Calibration finds one from 0.05 to 20."""
_MOST_BLOCKS, _MOST_POOLINGS = 4, 4  # an LSTM has four blocks of weights
_UNSAID_TEXT = {"normalization": "none"}
"""Text settings of models that are older than the setting."""


def load_metadata(path: Path) -> dict[str, Any]:
    """Read the `model.json` of a classifier, and check its format version.

    Raises:
        UserError: see `read_metadata`; or it is a language model.
    """
    metadata = read_metadata(path)
    if is_language_model(metadata):
        raise UserError(
            f"{path} is a language model, which gives no labels. Train a classifier from it: "
            f"distlstm train DATA --init {path} --output MODEL."
        )
    return metadata


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the `model.json` of a classifier or a language model, and check its format version.

    Raises:
        UserError: it is missing, too large, not a regular file, not JSON, or of another format
            version.
    """
    file = path / METADATA_FILE
    try:
        metadata = read_json(file, largest=_LARGEST_METADATA)
    except FileNotFoundError as error:
        raise UserError(f"{path} is not a model directory: it has no {METADATA_FILE}.") from error
    except (OSError, ValueError) as error:
        raise UserError(f"The model directory {path} is damaged: {file.name}: {error}.") from error
    check_format(metadata, str(path))
    return dict(metadata)


def check_format(metadata: Any, location: str) -> None:
    """Check the format version of a model.

    Raises:
        UserError: it is not the one that this version reads and writes.
    """
    found = metadata.get("format_version") if isinstance(metadata, dict) else None
    if found != FORMAT_VERSION:
        raise UserError(
            f"{location} has format version {found!r}, but this distlstm ({__version__}) reads "
            f"version {FORMAT_VERSION}. Use the version of distlstm that wrote it, or train again."
        )


def is_language_model(metadata: Mapping[str, Any]) -> bool:
    """Whether it is a language model and not a classifier."""
    return metadata.get("kind") == LANGUAGE


def gives_label_sets(metadata: Mapping[str, Any]) -> bool:
    """Whether the model gives each row a set of labels, as in `LabelKind.gives_sets`."""
    return metadata.get("kind") == "multi"


def model_fingerprint(path: Path, metadata: Mapping[str, Any]) -> str:
    """Check all of a MODEL directory that can be checked without torch; return its fingerprint.

    Raises:
        UserError: the directory is damaged.
    """
    try:
        check_digests(path, metadata)
        if not is_language_model(metadata):
            read_labels(metadata["labels"])
            read_temperature(metadata["temperature"])
        Vocabulary.load(path / VOCABULARY_FILE)
        for name in (WEIGHTS_FILE, LINEAR_FILE):
            if name in metadata["files"]:
                check_finite(name, _tensors(path / name))
        return fingerprint_of(metadata)
    except (
        *(UserError, KeyError, TypeError, ValueError, OverflowError, OSError),
        SafetensorError,
    ) as error:
        raise UserError(f"The model directory {path} is damaged: {error}.") from error


def fingerprint_of(metadata: Mapping[str, Any]) -> str:
    """The digest of all that determines a model's predictions.

    Raises:
        KeyError: an entry is missing.
    """
    keys = ["files", "text", "model"]
    if not is_language_model(metadata):
        keys = ["files", "labels", "text", "model", "temperature"]
    decisive = [metadata[key] for key in keys]
    decisive += [metadata[key] for key in ("kind", "thresholds", "cascade") if key in metadata]
    return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:16]


def stored_config(metadata: Mapping[str, Any]) -> ExperimentConfig:
    """The config of the training that wrote a model; in JSON, an infinite `clip_norm` is null.

    Raises:
        UserError, KeyError, TypeError: it is incomplete or invalid.
    """
    section = "pretraining" if is_language_model(metadata) else "training"
    tables = {key: metadata[key] for key in ("seed", "text", "model", section)}
    tables["text"] = {**_UNSAID_TEXT, **tables["text"]}
    tables[section] = {
        name: math.inf if value is None else value for name, value in tables[section].items()
    }
    return read_config(tables)


def read_labels(names: Any) -> LabelSet:
    """The labels of a model.

    Raises:
        ValueError: they are not distinct texts.
    """
    texts = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
    if not texts or not names or len(set(names)) < len(names):
        raise ValueError("its labels are not distinct texts")
    return LabelSet(tuple(names))


def read_temperature(value: Any) -> float:
    """A temperature, by which logits are divided.

    Raises:
        ValueError: it is not one that calibration finds.
    """
    least, most = _TEMPERATURES
    if type(value) not in (int, float) or not least <= value <= most:
        raise ValueError(f"its temperature is {value!r}, not a number from {least:g} to {most:g}")
    return float(value)


def check_finite(file: str, tensors: Iterable[tuple[str, np.ndarray]]) -> None:
    """Refuse weights that are NaN, infinite, or so large that a logit could become so.

    Raises:
        ValueError: such a weight was found; the message names the file and the tensor.
    """
    for name, values in tensors:
        with np.errstate(all="ignore"):
            # The norm is at least the largest magnitude, and reads each weight once.
            norm = np.linalg.norm(values.ravel())
        if values.dtype.kind == "f" and not norm <= _LARGEST_WEIGHT:
            raise ValueError(f"{file}: {name} has a weight that is not finite or far too large")


def _tensors(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Read the tensors of a file of weights, one after the other."""
    with safe_open(path, framework="numpy") as tensors:
        for name in tensors.keys():  # noqa: SIM118 (it is no mapping)
            yield name, tensors.get_tensor(name)


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
    sizes = {name: regular_size(path / name) for name in file_names(metadata)}
    check_sizes(sizes, metadata)
    for name in sizes:
        if digest_of(path / name) != files[name]:
            raise ValueError(f"{name} has changed since it was written")


def file_names(metadata: Mapping[str, Any]) -> list[str]:
    """The files of a model besides `model.json`."""
    optional = [LINEAR_FILE] if LINEAR_FILE in metadata["files"] else []
    return [WEIGHTS_FILE, VOCABULARY_FILE, *optional]


def check_sizes(sizes: Mapping[str, int], metadata: Mapping[str, Any]) -> None:
    """Check the sizes in bytes of the files of a model before they are read.

    Raises:
        UserError, KeyError, TypeError, ValueError: a size is not the recorded one, or is larger
            than the shapes in `model.json` allow.
    """
    largest = _largest_sizes(sizes[VOCABULARY_FILE], metadata)
    for name, size in sizes.items():
        if size > largest[name]:
            raise ValueError(
                f"{name} is too large: {size} bytes, at most {largest[name]} are possible"
            )
        if size != metadata["files"][name]["bytes"]:
            recorded = metadata["files"][name]["bytes"]
            raise ValueError(f"{name} has {size} bytes instead of {recorded}")


def _largest_sizes(vocabulary_bytes: int, metadata: Mapping[str, Any]) -> dict[str, int]:
    """The largest possible size of each file, by the config, the labels and the vocabulary."""
    num_labels = 0 if is_language_model(metadata) else len(metadata["labels"])
    vocab_size = vocabulary_bytes // 2 + 1  # a token and its line feed
    features = vocab_size + _MOST_NGRAMS
    return {
        VOCABULARY_FILE: LARGEST_VOCABULARY_FILE,
        WEIGHTS_FILE: _LARGEST_HEADER
        + 4 * _most_weights(stored_config(metadata), vocab_size, num_labels),
        LINEAR_FILE: _LARGEST_HEADER + 4 * (features * (num_labels + 2) + num_labels),
    }


def _most_weights(config: ExperimentConfig, vocab_size: int, num_labels: int) -> int:
    """An upper bound of the number of weights, without torch."""
    sizes = config.model
    both = 2 * sizes.hidden_dim
    layer = both * _MOST_BLOCKS * (max(sizes.embedding_dim, both) + sizes.hidden_dim + 2)
    pooled = _MOST_POOLINGS * both + 1
    pooling = pooled * (both + 1)
    predictions = 2 * (sizes.hidden_dim + 1) * sizes.embedding_dim  # of a language model
    rest = max(predictions, pooling + num_labels * pooled)
    return vocab_size * sizes.embedding_dim + sizes.num_layers * layer + rest
