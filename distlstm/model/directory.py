"""The MODEL directory, which training writes and all other commands load.

It has `model.safetensors` (weights), `wide.safetensors` (the linear model, if there is one),
`vocabulary.txt` and `model.json`, which is written last and lists the sizes and digests of the
others. Nothing in it is executed, so a directory from an unknown source is safe to load; a damaged
one is refused.
"""

import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from distlstm.atomic import replace_file, write_text
from distlstm.config import ExperimentConfig
from distlstm.errors import UserError
from distlstm.json_text import write_json
from distlstm.model.cascade import Cascade
from distlstm.model.classifier import Classifier
from distlstm.model.label_kind import ONE_LABEL, LabelKind, kind_of
from distlstm.model.linear import LinearModel
from distlstm.model.metadata import (
    LINEAR_FILE,
    METADATA_FILE,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    check_digests,
    check_finite,
    fingerprint_of,
    load_metadata,
    read_labels,
    read_temperature,
    stored_config,
)
from distlstm.model.weights_file import digests, load_weights, origin, save_weights
from distlstm.text.labels import LabelSet
from distlstm.text.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class TrainedModel:
    """A trained classifier with all that prediction needs."""

    config: ExperimentConfig
    classifier: Classifier
    vocabulary: Vocabulary
    labels: LabelSet
    temperature: float
    """The logits of the classifier are divided by it."""
    linear: LinearModel | None = None
    """The linear model, scaled by its ensemble weight: the ensemble adds its logits to those of the
    classifier / `temperature`."""
    cascade: Cascade | None = None
    """When the linear model answers alone (early exit); None if never."""
    kind: LabelKind = ONE_LABEL
    metadata: dict[str, Any] = field(default_factory=dict)
    """Figures of the training: `metrics`, `baseline`, `corpus`."""
    fingerprint: str = ""
    """Of weights, vocabulary, labels and text config; empty until the model is saved."""


def save_model(model: TrainedModel, path: Path) -> None:
    """Write a MODEL directory; `model.json`, which completes it, comes last."""
    path.mkdir(parents=True, exist_ok=True)
    for name in (METADATA_FILE, LINEAR_FILE):
        (path / name).unlink(missing_ok=True)
    save_weights(model.classifier.state_dict(), path)
    written = [WEIGHTS_FILE, VOCABULARY_FILE]
    write_text(path / VOCABULARY_FILE, model.vocabulary.to_text())
    if model.linear is not None:
        written.append(LINEAR_FILE)
        with replace_file(path / LINEAR_FILE) as temporary:
            save_file(model.linear.to_tensors(), temporary)
    metadata = {
        **origin(),
        **_config_tables(model.config),
        "labels": list(model.labels.names),
        "vocabulary_size": len(model.vocabulary),
        "temperature": model.temperature,
        **({} if model.cascade is None else {"cascade": asdict(model.cascade)}),
        **model.kind.to_metadata(),
        **model.metadata,
        "files": digests(path, written),
    }
    write_json(path / METADATA_FILE, metadata)


def load_model(path: Path, metadata: dict[str, Any] | None = None) -> TrainedModel:
    """Load a MODEL directory; read its metadata if it is not given.

    Raises:
        UserError: the directory is not a model, has another format version, or is damaged.
    """
    metadata = load_metadata(path) if metadata is None else metadata
    try:
        config = stored_config(metadata)
        labels = read_labels(metadata["labels"])
        check_digests(path, metadata)
        vocabulary = Vocabulary.load(path / VOCABULARY_FILE)
        sizes = {"vocab_size": len(vocabulary), "num_labels": len(labels)}
        classifier = load_weights(path, lambda: Classifier(config.model, **sizes))
        linear = _load_linear(path, metadata, len(vocabulary), len(labels))
        kind = _read_kind(metadata, len(labels))
        return TrainedModel(
            config=config,
            classifier=classifier,
            vocabulary=vocabulary,
            labels=labels,
            temperature=read_temperature(metadata["temperature"]),
            linear=linear,
            cascade=_read_cascade(metadata, linear, kind),
            kind=kind,
            metadata={
                key: metadata[key]
                for key in ("metrics", "baseline", "corpus", "language_model")
                if key in metadata
            },
            fingerprint=fingerprint_of(metadata),
        )
    except (
        *(UserError, KeyError, TypeError, ValueError, OverflowError, OSError, RuntimeError),
        SafetensorError,
    ) as error:
        raise UserError(f"The model directory {path} is damaged: {error}.") from error


def _read_kind(metadata: dict[str, Any], num_labels: int) -> LabelKind:
    kind = kind_of(metadata)
    kind.check(num_labels)
    return kind


def _read_cascade(
    metadata: dict[str, Any], linear: LinearModel | None, kind: LabelKind
) -> Cascade | None:
    if "cascade" not in metadata:
        return None
    if linear is None or kind.gives_sets:
        raise ValueError("it has a cascade but no linear model of single labels")
    cascade = Cascade(**metadata["cascade"])
    for name, value, most in (
        ("lead", cascade.lead, sys.float_info.max),
        ("share", cascade.share, 1),
    ):
        if type(value) is not float or not 0 <= value <= most:
            raise ValueError(f"the {name} of its cascade is {value!r}")
    read_temperature(cascade.temperature)
    return cascade


def _load_linear(
    path: Path, metadata: dict[str, Any], vocab_size: int, num_labels: int
) -> LinearModel | None:
    if LINEAR_FILE not in metadata["files"]:
        return None
    tensors = load_file(path / LINEAR_FILE)
    check_finite(LINEAR_FILE, ((name, value.numpy()) for name, value in tensors.items()))
    return LinearModel.from_tensors(tensors, vocab_size=vocab_size, num_labels=num_labels)


def _config_tables(config: ExperimentConfig) -> dict[str, Any]:
    return {
        "seed": config.seed,
        "text": asdict(config.text),
        "model": asdict(config.model),
        "training": asdict(config.training),
    }
