"""Reads and writes the weights of a module, and what every MODEL directory says of itself."""

import platform
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from distlstm import __version__
from distlstm.atomic import replace_file
from distlstm.model.metadata import FORMAT_VERSION, WEIGHTS_FILE, check_finite, digest_of

_Module = TypeVar("_Module", bound=nn.Module)


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


def save_weights(weights: dict[str, Tensor], path: Path) -> None:
    """Write the weights of a module into a directory."""
    with replace_file(path / WEIGHTS_FILE) as temporary:
        save_file({name: value.contiguous() for name, value in weights.items()}, temporary)


def load_weights(path: Path, build: Callable[[], _Module]) -> _Module:
    """Build a module with the weights in a directory.

    Shapes are compared before any memory is allocated for them.

    Raises:
        ValueError: the weights do not fit the module, or are not finite.
    """
    with torch.device("meta"), _NoInitialWeights():
        module = build()
    weights = load_file(path / WEIGHTS_FILE)
    wanted = {name: (value.shape, value.dtype) for name, value in module.state_dict().items()}
    found = {name: (value.shape, value.dtype) for name, value in weights.items()}
    if wanted != found:
        different = sorted(n for n in wanted | found if wanted.get(n) != found.get(n))
        raise ValueError(f"weights do not fit the config: {', '.join(different[:3])}")
    check_finite(WEIGHTS_FILE, ((name, value.numpy()) for name, value in weights.items()))
    module.load_state_dict(weights, assign=True)
    return module.eval()


def origin() -> dict[str, Any]:
    """The format and the versions that `model.json` records."""
    return {
        "format_version": FORMAT_VERSION,
        "distlstm_version": __version__,
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "ray", "pyarrow")},
        },
    }


def digests(path: Path, names: Iterable[str]) -> dict[str, Any]:
    """Sizes and digests of the files of a model, which `model.json` records."""
    return {name: digest_of(path / name) for name in names}
