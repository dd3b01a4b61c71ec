"""The card of a model, `GET /model`: what it tells apart, how good and how large it is."""

from typing import Any

from distlstm import __version__
from distlstm.stages.serving.current_model import LoadedModel
from distlstm.stages.serving.settings import Limits

_COPIED = ("metrics", "text", "model", "vocabulary_size", "versions", "created", "seed")


def card_of(loaded: LoadedModel, limits: Limits) -> dict[str, Any]:
    """The card, from `model.json`."""
    model, metadata = loaded.predictor.model, loaded.metadata
    return {
        "fingerprint": model.fingerprint,
        "labels": list(model.labels.names),
        "kind": "label sets" if model.kind.gives_sets else "one label",
        "thresholds": list(model.kind.thresholds),
        **{name: metadata[name] for name in _COPIED if name in metadata},
        "parameters": sum(weight.numel() for weight in model.classifier.parameters()),
        "has_linear_model": model.linear is not None,
        "bytes": sum(file["bytes"] for file in metadata["files"].values()),
        "distlstm": __version__,
        "limits": vars(limits),
    }
