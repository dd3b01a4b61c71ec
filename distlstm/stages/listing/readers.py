"""Reads the record of an output, by its kind: one small file, or the head of a large one."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distlstm.errors import UserError
from distlstm.json_text import parse_json
from distlstm.model.metadata import METADATA_FILE, check_format, fingerprint_of, is_language_model
from distlstm.stages.listing.record import Kind
from distlstm.stages.prediction.manifest import read_head
from distlstm.stages.run.files import (
    BEST,
    EVALUATION_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    PREDICTION_REPORT_FILE,
    REPORT_FILE,
    RUN_FILE,
    STUDY_FILE,
    SUCCESS_FILE,
)
from distlstm.stages.run.output import flat
from distlstm.storage import Directory

Content = Mapping[str, Any]
"""Fields of a `RunRecord`, and whether the output is `finished`."""
_SECTIONS = ("text.", "model.", "training.", "pretraining.", "search.", "seed", "validation_")
_METRICS = ("accuracy", "macro_f1", "micro_f1", "log_loss", "perplexity", "ece", "mcc")


@dataclass(frozen=True)
class Reader:
    """How the outputs of a kind are recognised and read."""

    kind: Kind
    marks: Sequence[str]
    """Files of which such an output has at least one; the first that exists tells its time."""
    read: Callable[[Directory, Collection[str]], Content]
    """Reads the record; gets the names of the marks that exist."""
    report: str = REPORT_FILE


def _study(storage: Directory, names: Collection[str]) -> Content:
    del names
    recorded = parse_json(storage.read(STUDY_FILE))
    identity, result = recorded.get("run") or {}, recorded.get("result") or {}
    best, is_finished = result.get("best") or {}, bool(recorded.get("finished"))
    model = _best_model(storage) if is_finished else {}
    return {
        "finished": is_finished,
        "data": recorded.get("data") or model.get("data", ""),
        "metric": recorded.get("metric") or identity.get("search.metric", ""),
        "metrics": _numbers(best.get("metrics") or {}),
        "rows": model.get("rows"),
        "rows_per_second": best.get("rows_per_second"),
        "trials": len(result["trials"]) if result else None,
        "settings": _settings(identity),
        "fingerprint": model.get("fingerprint", ""),
    }


def _best_model(storage: Directory) -> Content:
    try:
        return _model(storage.below(BEST), ())
    except FileNotFoundError:
        return {}


def _model(storage: Directory, names: Collection[str]) -> Content:
    del names
    metadata = parse_json(storage.read(METADATA_FILE))
    check_format(metadata, storage.location)
    corpus, is_language = metadata["corpus"], is_language_model(metadata)
    sections = ("text", "model", "pretraining" if is_language else "training")
    settings = flat({name: metadata[name] for name in ("seed", *sections)})
    return {
        "finished": True,
        "kind": "language model" if is_language else "model",
        "data": corpus.get("source", ""),
        "metric": "perplexity" if is_language else settings.get("training.metric", "accuracy"),
        "metrics": _numbers(metadata["metrics"]),
        "rows": corpus["num_training"],
        "settings": settings,
        "fingerprint": fingerprint_of(metadata) if "files" in metadata else "",
    }


def _training(storage: Directory, names: Collection[str]) -> Content:
    """A training, or that of a language model, that has not ended."""
    del names
    identity = parse_json(storage.read(RUN_FILE))
    return {
        "finished": False,
        "kind": "model" if "columns.label" in identity else "language model",
        "settings": _settings(identity),
    }


def _evaluation(storage: Directory, names: Collection[str]) -> Content:
    has_metrics = METRICS_FILE in names
    metrics = parse_json(storage.read(METRICS_FILE)) if has_metrics else {}
    recorded = parse_json(storage.read(EVALUATION_FILE)) if EVALUATION_FILE in names else {}
    identity = recorded.get("run") or {}
    return {
        "finished": has_metrics and bool(recorded.get("finished", True)),
        "data": recorded.get("data", ""),
        "model": identity.get("model", ""),
        "metric": "accuracy",
        "metrics": _numbers(metrics),
        "rows": metrics.get("num_rows"),
        "settings": identity,
    }


def _predictions(storage: Directory, names: Collection[str]) -> Content:
    head = read_head(storage)
    inputs, settings = head["run"]["inputs"], flat(head["settings"])
    return {
        "finished": SUCCESS_FILE in names,
        "data": ", ".join(inputs),
        "model": settings.get("model", ""),
        "rows": head["rows_out"],
        "settings": settings,
    }


PREDICTIONS = Reader(
    "predictions", (MANIFEST_FILE, SUCCESS_FILE), _predictions, PREDICTION_REPORT_FILE
)
READERS = (
    Reader("study", (STUDY_FILE,), _study),
    Reader("model", (METADATA_FILE,), _model),
    Reader("evaluation", (METRICS_FILE, EVALUATION_FILE), _evaluation),
)
UNFINISHED = Reader("model", (RUN_FILE,), _training)
DAMAGES = (KeyError, TypeError, ValueError, AttributeError, UserError, FileNotFoundError)
"""What reading a record raises if it is damaged."""


def _numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    found = {name: metrics.get(name) for name in (*_METRICS, "loss")}
    return {
        name: float(value)
        for name, value in found.items()
        if isinstance(value, int | float) and math.isfinite(value)
    }


def _settings(identity: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in identity.items() if name.startswith(_SECTIONS)}
