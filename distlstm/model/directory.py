"""The MODEL directory, which training writes and all other commands load.

It has `model.safetensors` (weights), `wide.safetensors` (the linear model, if there is one),
`vocabulary.txt` and `model.json`, which is written last and lists the sizes and digests of the
others. Nothing in it is executed, so a directory from an unknown source is safe to load; a damaged
one is refused.
"""

import json
import platform
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from distlstm import __version__
from distlstm.atomic import replace_file, write_text
from distlstm.config import ExperimentConfig
from distlstm.errors import UserError
from distlstm.model.cascade import Cascade
from distlstm.model.classifier import Classifier
from distlstm.model.label_kind import ONE_LABEL, LabelKind, kind_of
from distlstm.model.linear import LinearModel
from distlstm.model.metadata import (
    FORMAT_VERSION,
    LINEAR_FILE,
    METADATA_FILE,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    check_digests,
    digest_of,
    fingerprint_of,
    load_metadata,
    stored_config,
)
from distlstm.text.labels import LabelSet
from distlstm.text.vocabulary import Vocabulary

_TEMPERATURES = (1e-3, 1e3)
"""Calibration finds one from 0.05 to 20."""
_LARGEST_WEIGHT = 1e15


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
    weights = {name: value.contiguous() for name, value in model.classifier.state_dict().items()}
    with replace_file(path / WEIGHTS_FILE) as temporary:
        save_file(weights, temporary)
    written = [WEIGHTS_FILE, VOCABULARY_FILE]
    write_text(path / VOCABULARY_FILE, model.vocabulary.to_text())
    if model.linear is not None:
        written.append(LINEAR_FILE)
        with replace_file(path / LINEAR_FILE) as temporary:
            save_file(model.linear.to_tensors(), temporary)
    metadata = {
        "format_version": FORMAT_VERSION,
        "distlstm_version": __version__,
        **_config_tables(model.config),
        "labels": list(model.labels.names),
        "vocabulary_size": len(model.vocabulary),
        "temperature": model.temperature,
        **({} if model.cascade is None else {"cascade": asdict(model.cascade)}),
        **model.kind.to_metadata(),
        **model.metadata,
        "files": {name: digest_of(path / name) for name in written},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "ray", "pyarrow")},
        },
    }
    write_text(path / METADATA_FILE, json.dumps(metadata, ensure_ascii=False, indent=1) + "\n")


def load_model(path: Path, metadata: dict[str, Any] | None = None) -> TrainedModel:
    """Load a MODEL directory; read its metadata if it is not given.

    Raises:
        UserError: the directory is not a model, has another format version, or is damaged.
    """
    metadata = load_metadata(path) if metadata is None else metadata
    try:
        config = stored_config(metadata)
        labels = _read_labels(metadata["labels"])
        check_digests(path, metadata)
        vocabulary = Vocabulary.load(path / VOCABULARY_FILE)
        classifier = _load_classifier(path, config, len(vocabulary), len(labels))
        linear = _load_linear(path, metadata, len(vocabulary), len(labels))
        kind = _read_kind(metadata, len(labels))
        return TrainedModel(
            config=config,
            classifier=classifier,
            vocabulary=vocabulary,
            labels=labels,
            temperature=_read_temperature(metadata["temperature"]),
            linear=linear,
            cascade=_read_cascade(metadata, linear, kind),
            kind=kind,
            metadata={
                key: metadata[key] for key in ("metrics", "baseline", "corpus") if key in metadata
            },
            fingerprint=fingerprint_of(metadata),
        )
    except (
        *(UserError, KeyError, TypeError, ValueError, OverflowError, OSError, RuntimeError),
        SafetensorError,
    ) as error:
        raise UserError(f"The model directory {path} is damaged: {error}.") from error


def _read_labels(names: Any) -> LabelSet:
    texts = isinstance(names, list) and all(isinstance(name, str) and name for name in names)
    if not texts or not names or len(set(names)) < len(names):
        raise ValueError("its labels are not distinct texts")
    return LabelSet(tuple(names))


def _read_temperature(value: Any) -> float:
    least, most = _TEMPERATURES
    if type(value) not in (int, float) or not least <= value <= most:
        raise ValueError(f"its temperature is {value!r}, not a number from {least:g} to {most:g}")
    return float(value)


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
    _read_temperature(cascade.temperature)
    return cascade


class _NoInitialWeights(TorchFunctionMode):
    """Skips `torch.nn.init`, which on the meta device only costs a second of imports."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        del types
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else None
        return func(*args, **(kwargs or {}))


def _load_classifier(
    path: Path, config: ExperimentConfig, vocab_size: int, num_labels: int
) -> Classifier:
    """Compare the shapes before any memory is allocated for them, then load the weights."""
    with torch.device("meta"), _NoInitialWeights():
        classifier = Classifier(config.model, vocab_size=vocab_size, num_labels=num_labels)
    weights = load_file(path / WEIGHTS_FILE)
    wanted = {name: (value.shape, value.dtype) for name, value in classifier.state_dict().items()}
    found = {name: (value.shape, value.dtype) for name, value in weights.items()}
    if wanted != found:
        different = sorted(n for n in wanted | found if wanted.get(n) != found.get(n))
        raise ValueError(f"weights do not fit the config: {', '.join(different[:3])}")
    _check_finite(weights, WEIGHTS_FILE)
    classifier.load_state_dict(weights, assign=True)
    return classifier.eval()


def _check_finite(tensors: Mapping[str, Tensor], file: str) -> None:
    """Refuse weights that are NaN, infinite, or so large that a logit could become so.

    Raises:
        ValueError: such a weight was found; the message names the file and the tensor.
    """
    for name, values in tensors.items():
        # The norm is at least the largest magnitude, and reads each weight once.
        if values.is_floating_point() and not float(values.norm()) <= _LARGEST_WEIGHT:
            raise ValueError(f"{file}: {name} has a weight that is not finite or far too large")


def _load_linear(
    path: Path, metadata: dict[str, Any], vocab_size: int, num_labels: int
) -> LinearModel | None:
    if LINEAR_FILE not in metadata["files"]:
        return None
    tensors = load_file(path / LINEAR_FILE)
    _check_finite(tensors, LINEAR_FILE)
    return LinearModel.from_tensors(tensors, vocab_size=vocab_size, num_labels=num_labels)


def _config_tables(config: ExperimentConfig) -> dict[str, Any]:
    return {
        "seed": config.seed,
        "text": asdict(config.text),
        "model": asdict(config.model),
        "training": asdict(config.training),
    }
