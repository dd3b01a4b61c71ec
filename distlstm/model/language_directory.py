"""The directory of a language model, from which trainings of classifiers begin.

It is a MODEL directory without labels: weights, vocabulary, and a `model.json` of kind `language`.
"""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from distlstm.atomic import write_text
from distlstm.config import ExperimentConfig
from distlstm.errors import UserError
from distlstm.json_text import write_json
from distlstm.model.language_model import LanguageModel
from distlstm.model.metadata import (
    LANGUAGE,
    METADATA_FILE,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    check_digests,
    fingerprint_of,
    is_language_model,
    read_metadata,
    stored_config,
)
from distlstm.model.weights_file import digests, load_weights, origin, save_weights
from distlstm.text.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class PretrainedModel:
    """A trained language model with its vocabulary."""

    config: ExperimentConfig
    model: LanguageModel
    vocabulary: Vocabulary
    metadata: dict[str, Any] = field(default_factory=dict)
    """Figures of the training: `metrics`, `corpus`."""
    fingerprint: str = ""
    """Of weights, vocabulary and config; empty until the model is saved."""


def save_language_model(pretrained: PretrainedModel, path: Path) -> None:
    """Write the directory of a language model; `model.json`, which completes it, comes last."""
    path.mkdir(parents=True, exist_ok=True)
    (path / METADATA_FILE).unlink(missing_ok=True)
    save_weights(pretrained.model.state_dict(), path)
    write_text(path / VOCABULARY_FILE, pretrained.vocabulary.to_text())
    config = pretrained.config
    metadata = {
        **origin(),
        "kind": LANGUAGE,
        "seed": config.seed,
        "text": asdict(config.text),
        "model": asdict(config.model),
        "pretraining": asdict(config.pretraining),
        "vocabulary_size": len(pretrained.vocabulary),
        **pretrained.metadata,
        "files": digests(path, (WEIGHTS_FILE, VOCABULARY_FILE)),
    }
    write_json(path / METADATA_FILE, metadata)


def load_language_model(path: Path) -> PretrainedModel:
    """Load the directory of a language model.

    Raises:
        UserError: it is not one, has another format version, or is damaged.
    """
    metadata = read_metadata(path)
    if not is_language_model(metadata):
        raise UserError(f"{path} is a classifier, not a language model.")
    try:
        config = stored_config(metadata)
        check_digests(path, metadata)
        vocabulary = Vocabulary.load(path / VOCABULARY_FILE)
        return PretrainedModel(
            config=config,
            model=load_weights(
                path, lambda: LanguageModel(config.model, vocab_size=len(vocabulary))
            ),
            vocabulary=vocabulary,
            metadata={key: metadata[key] for key in ("metrics", "corpus") if key in metadata},
            fingerprint=fingerprint_of(metadata),
        )
    except (
        *(UserError, KeyError, TypeError, ValueError, OverflowError, OSError, RuntimeError),
        SafetensorError,
    ) as error:
        raise UserError(f"The language model {path} is damaged: {error}.") from error
