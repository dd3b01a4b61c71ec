"""Going on from an earlier model (`--init`): what must agree with it, and what is taken over."""

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import Inherited
from distlstm.errors import UserError
from distlstm.model.directory import load_model
from distlstm.stages.run.output import flat

_FREE = (
    *("text.vectors", "model.dropout", "model.state_dropout", "model.token_dropout"),
    *("model.wide", "model.cascade"),  # fitted anew
)
"""Fields of [text] and [model] that a later training may change: no kept weight depends on them."""


def inherit(init: Path, config: ExperimentConfig) -> Inherited:
    """What a training takes over from a MODEL directory besides its weights.

    Raises:
        UserError: it is no sound model, or of other [text] or [model] settings; names them.
    """
    model = load_model(init)
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
        raise UserError(f"{init} was trained with {were}. To go on from it, add {settings}.")
    return Inherited(
        path=str(init.absolute()),
        fingerprint=model.fingerprint,
        num_tokens=len(model.vocabulary),
        labels=model.labels.names,
    )


def check_apart(init: Path, output: Path) -> None:
    """See that writing, or replacing, the output leaves the earlier model alone.

    Raises:
        UserError: the one is, or holds, the other.
    """
    if output.resolve() in (init.resolve(), *init.resolve().parents):
        raise UserError(f"{output} holds the model that --init names. Choose another --output.")


def _decisive(config: ExperimentConfig) -> dict[str, Any]:
    tables = flat({"text": asdict(config.text), "model": asdict(config.model)})
    return {name: value for name, value in tables.items() if name not in _FREE}


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
