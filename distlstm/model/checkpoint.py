"""Checkpoints of a training, as safetensors and JSON: nothing in them is executed."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from safetensors.torch import load_file, save_file
from torch import Tensor

from distlstm.model.loop import BegunEpoch, EpochFigures, EpochLoop

_Result = TypeVar("_Result", bound=EpochFigures)
_TENSORS, _HISTORY, _BEGUN = "training.safetensors", "history.json", "begun.json"


def save_training(training: EpochLoop[Any, Any], directory: Path) -> None:
    """Write weights, best weights, optimizer states and history into an existing directory."""
    tensors = {f"model/{name}": value for name, value in training.model.state_dict().items()}
    tensors |= {f"best/{name}": value for name, value in training.best_weights.items()}
    tensors |= {f"embedding/{name}": v for name, v in training.embedding.state_dict().items()}
    for index, state in training.optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer/{index}/{name}": value for name, value in state.items()}
    save_file({name: value.contiguous() for name, value in tensors.items()}, directory / _TENSORS)
    history = [asdict(result) for result in training.history]
    (directory / _HISTORY).write_text(json.dumps(history, allow_nan=False), encoding="utf-8")
    if training.begun is not None:
        begun = json.dumps(asdict(training.begun), allow_nan=False)
        (directory / _BEGUN).write_text(begun, encoding="utf-8")


def restore_training(training: EpochLoop[Any, Any], directory: Path) -> None:
    """Restore the saved state into a new training of the same configuration and sizes."""
    tensors = load_file(directory / _TENSORS)
    training.model.load_state_dict(_below(tensors, "model/"))
    training.best_weights = _below(tensors, "best/")
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in _below(tensors, "optimizer/").items():
        index, _, key = name.partition("/")
        state.setdefault(int(index), {})[key] = value
    groups = training.optimizer.state_dict()["param_groups"]
    training.optimizer.load_state_dict({"state": state, "param_groups": groups})
    training.embedding.load_state_dict(_below(tensors, "embedding/"))
    training.history = load_history(directory, training.result_type)
    begun = directory / _BEGUN
    if begun.exists():
        training.begun = BegunEpoch(**json.loads(begun.read_text(encoding="utf-8")))
    if training.history:
        training.highest_rate = training.history[-1].highest_rate


def load_history(directory: Path, result_type: type[_Result]) -> list[_Result]:
    """The epochs of a checkpoint."""
    rows = json.loads((directory / _HISTORY).read_text(encoding="utf-8"))
    return [result_type.from_json(row) for row in rows]


def load_best_weights(directory: Path) -> dict[str, Tensor]:
    """The weights of the best epoch of a checkpoint."""
    return _below(load_file(directory / _TENSORS), "best/")


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }
