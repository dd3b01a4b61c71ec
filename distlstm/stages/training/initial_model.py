"""Continues from an earlier model (`--init`): checks settings, takes over vocabulary and labels."""

import json
import shlex
from dataclasses import asdict
from typing import Any

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import Inherited
from distlstm.errors import UserError
from distlstm.model.directory import load_model
from distlstm.stages.run.models import model_directory
from distlstm.stages.run.output import flat
from distlstm.storage import Directory, LocalStorage

_FREE = (
    *("text.vectors", "model.dropout", "model.state_dropout", "model.token_dropout"),
    *("model.wide", "model.cascade"),  # fitted again
)
"""Fields of [text] and [model] that may differ: no weight that is taken over depends on them."""


def inherit(init: Directory, config: ExperimentConfig) -> Inherited:
    """What a training takes over from a MODEL directory besides its weights.

    Raises:
        UserError: the model is damaged, or its [text] or [model] settings differ; the message
            lists them.
    """
    with model_directory(init) as path:
        model = load_model(path)
    earlier, asked = _decisive(model.config), _decisive(config)
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
        labels=model.labels.names,
    )


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


def _decisive(config: ExperimentConfig) -> dict[str, Any]:
    tables = flat({"text": asdict(config.text), "model": asdict(config.model)})
    return {name: value for name, value in tables.items() if name not in _FREE}


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
