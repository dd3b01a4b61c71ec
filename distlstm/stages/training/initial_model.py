"""Continues from an earlier model (`--init`): checks settings, takes over vocabulary and labels."""

import json
import shlex
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import Inherited
from distlstm.errors import UserError
from distlstm.model.directory import TrainedModel, load_model
from distlstm.model.language_directory import PretrainedModel, load_language_model
from distlstm.model.metadata import is_language_model, read_metadata, stored_config
from distlstm.stages.run.files import HISTORY_FILE
from distlstm.stages.run.models import model_directory
from distlstm.stages.run.output import flat
from distlstm.stages.training.history import read_history
from distlstm.storage import Directory, LocalStorage

_FREE = (
    *("text.vectors", "model.dropout", "model.state_dropout", "model.token_dropout"),
    *("model.wide", "model.cascade"),  # fitted again
)
"""Fields of [text] and [model] that may differ: no weight that is taken over depends on them."""
_FREE_WITH_LANGUAGE_MODEL = ("model.pooling",)
"""A language model has no pooling."""


def inherit(init: Directory, config: ExperimentConfig) -> Inherited:
    """What a training takes over from a MODEL or a language model besides its weights.

    Raises:
        UserError: the model is damaged, or its [text] or [model] settings differ; the message
            lists them.
    """
    model = load_initial(init)
    labels = model.labels.names if isinstance(model, TrainedModel) else ()
    free = _FREE if isinstance(model, TrainedModel) else (*_FREE, *_FREE_WITH_LANGUAGE_MODEL)
    earlier, asked = _decisive(model.config, free), _decisive(config, free)
    differing = {name: earlier[name] for name in earlier if earlier[name] != asked[name]}
    if differing:
        were = ", ".join(
            f"{name} = {_value(value)} (this command: {_value(asked[name])})"
            for name, value in differing.items()
        )
        settings = " ".join(
            f"--set {shlex.quote(f'{name}={_value(value)}')}" for name, value in differing.items()
        )
        raise UserError(
            f"{init.location} was trained with {were}. To continue from it, add {settings}."
        )
    return Inherited(
        path=init.location,
        fingerprint=model.fingerprint,
        num_tokens=len(model.vocabulary),
        labels=labels,
    )


def load_initial(init: Directory) -> TrainedModel | PretrainedModel:
    """Load the classifier or the language model in a directory.

    Raises:
        UserError: it is none, or is damaged.
    """
    with model_directory(init) as path:
        if is_language_model(read_metadata(path)):
            return load_language_model(path)
        return load_model(path)


def without_fixed(config: ExperimentConfig, init: Directory) -> ExperimentConfig:
    """The config of a study that begins with a language model: its sizes are not searched.

    Raises:
        UserError: the directory has no language model, or nothing else is searched.
    """
    metadata = _metadata_at(init)
    if not is_language_model(metadata):
        raise UserError(
            f"{init.location} is a classifier. A study begins with a language model, which "
            "distlstm pretrain makes."
        )
    fixed = _decisive(stored_config(metadata), (*_FREE, *_FREE_WITH_LANGUAGE_MODEL))
    space = {name: domain for name, domain in config.search.space.items() if name not in fixed}
    if not space:
        raise UserError(f"{init.location} fixes all parameters of search.space.")
    return replace(config, search=replace(config.search, space=space))


def language_figures(init: Directory | None) -> dict[str, Any] | None:
    """The figures of the language model from which a training begins; None if it does not.

    They are `perplexity`, `num_rows`, `num_tokens`, and `history`: a row per epoch.
    """
    if init is None:
        return None
    metadata = _metadata_at(init)
    if not is_language_model(metadata):
        return None
    with init.as_file(HISTORY_FILE) as file:
        history = read_history(file)
    return {
        "perplexity": metadata["metrics"]["perplexity"],
        "num_rows": metadata["corpus"]["num_training"],
        "num_tokens": metadata["corpus"]["num_tokens"],
        "history": [
            {name: row[name] for name in ("epoch", "training_loss", "perplexity", "seconds")}
            for row in history
        ],
    }


def _metadata_at(init: Directory) -> dict[str, Any]:
    with model_directory(init) as path:
        return read_metadata(path)


def check_apart(
    earlier: Directory, output: Directory, *, what: str = "the model of --init"
) -> None:
    """Check that writing or replacing the output does not touch an earlier model or study.

    Raises:
        UserError: the output is the earlier directory, or contains it.
    """
    if f"{_real_location(earlier)}/".startswith(f"{_real_location(output)}/"):
        raise UserError(f"{output.location} contains {what}. Choose another --output.")


def _real_location(storage: Directory) -> str:
    """Without symbolic links."""
    return str(storage.path.resolve()) if isinstance(storage, LocalStorage) else storage.location


def _decisive(config: ExperimentConfig, free: Sequence[str]) -> dict[str, Any]:
    tables = flat({"text": asdict(config.text), "model": asdict(config.model)})
    return {name: value for name, value in tables.items() if name not in free}


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
