"""Directories as the commands leave them, made without training anything."""

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.config import ExperimentConfig, to_toml
from distlstm.data.units import Size
from distlstm.stages.prediction.manifest import Drift, Run, write_manifest
from distlstm.stages.prediction.parts import Part, Parts, PredictionSettings, Sums, plain
from distlstm.storage import LocalStorage

HOSTILE = ("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "]]></svg><b>&amp;")


def study(path: Path, *, num_trials: int = 24, hostile: bool = False, **metadata: Any) -> Path:
    """A finished study of trials that end in every way, of which number 3 is chosen."""
    path.mkdir(parents=True)
    random = np.random.default_rng(0)
    trials = [_trial(random, i, hostile=hostile) for i in range(num_trials)]
    epochs = [row for i, trial in enumerate(trials) for row in _epochs(random, i, trial)]
    trials.sort(key=lambda row: -1 if row["macro_f1"] is None else row["macro_f1"], reverse=True)
    write_study(path, trials, epochs, hostile=hostile, **metadata)
    return path


def write_study(
    path: Path,
    trials: list[dict[str, Any]],
    epochs: list[dict[str, Any]],
    *,
    hostile: bool = False,
    **metadata: Any,
) -> None:
    content = {
        "run": {
            "search.metric": "macro_f1",
            "search.space.training.learning_rate.loguniform": [1e-4, 1e-1],
            "search.space.model.hidden_dim.choice": [32, 64, 128],
        },
        "finished": True,
        "result": {"study": str(path), "best": {}, "trials": [], "seconds": 84.0},
        "metric": "macro_f1",
        "importance": {"model.hidden_dim": 0.61, "training.learning_rate": 0.3, HOSTILE[0]: 0.09},
        "preferred": {"prefer": "fast", "tolerance": 0.5},
        **metadata,
    }
    (path / "study.json").write_text(json.dumps(content))
    if trials:
        pq.write_table(pa.Table.from_pylist(trials), path / "trials.parquet")
    if epochs:
        pq.write_table(pa.Table.from_pylist(epochs), path / "epochs.parquet")
    config = to_toml(ExperimentConfig()) + (f"# {HOSTILE[0]}\n" if hostile else "")
    (path / "best.toml").write_text(config)


def _trial(random: np.random.Generator, i: int, *, hostile: bool) -> dict[str, Any]:
    state = "failed" if i % 11 == 10 else "stopped" if random.random() < 0.6 else "done"
    hidden = int(random.choice([32, 64, 128]))
    rate = float(10 ** random.uniform(-4, -1))
    quality = 0.6 + 0.05 * math.log2(hidden / 16) - 0.06 * (math.log10(rate) + 2.4) ** 2
    quality = max(0.05, quality + float(random.normal(0, 0.01)) - 0.1 * (state == "stopped"))
    failed = state == "failed"
    return {
        "trial": str(i),
        "state": state,
        "epoch": {"done": 9, "stopped": int(random.choice([1, 3])), "failed": 2}[state],
        "seconds": 0.05 * hidden + float(random.random()),
        "error": f"OutOfMemoryError: {HOSTILE[1]}" if failed and hostile else "killed" * failed,
        "accuracy": None if failed else quality + 0.02,
        "macro_f1": None if failed else quality,
        "loss": float("nan") if failed else 2 - 1.5 * quality,
        "rows_per_second": None if failed else 4e5 / hidden * float(random.uniform(0.9, 1.1)),
        "num_parameters": hidden * hidden * 8 + 100_000,
        "is_chosen": i == 3,
        "model.hidden_dim": hidden,
        "training.learning_rate": rate,
        "model.cell": HOSTILE[i % 3] if hostile else str(random.choice(["lstm", "gru"])),
        "model.pooling": [["last"], ["last", "max"], ["mean", "max"]][i % 3],
        "model.bidirectional": bool(i % 2),
        "model.dropout": float(random.uniform(0.2, 0.6)),
    }


def _epochs(
    random: np.random.Generator, i: int, trial: dict[str, Any], num_workers: int = 4
) -> list[dict[str, Any]]:
    each = trial["seconds"] / trial["epoch"]
    start = 1.7e9 + i // num_workers * 6.0 + float(random.random()) * 0.3
    rows = []
    for epoch in range(1, trial["epoch"] + 1):
        quality = (trial["macro_f1"] or 0.4) * (1 - 0.5 * math.exp(-epoch / 2))
        rows.append(
            {
                "trial": str(i),
                "epoch": epoch,
                "accuracy": quality + 0.02,
                "macro_f1": quality,
                "loss": 2 - 1.5 * quality,
                "training_loss": 2 - 1.6 * quality,
                "started": start + (epoch - 1) * each,
                "ended": start + epoch * each,
                "worker": f"10.0.0.{1 + i % num_workers} {4711 + i % num_workers}",
            }
        )
    return rows


def model(path: Path, *, labels: tuple[str, ...] = ("sport", "money", "天气")) -> Path:
    """`model.json` and `history.parquet`, of eight epochs, as `train` leaves them."""
    path.mkdir(parents=True)
    figures = {"accuracy": 0.81, "macro_f1": 0.8, "weighted_f1": 0.8, "mcc": 0.7}
    config = ExperimentConfig().to_dict()
    metadata = {
        "format_version": 2,
        "labels": labels,
        "vocabulary_size": 4_000,
        "metrics": {**figures, "log_loss": 0.6, "ece": 0.02, "num_rows": 1_200},
        "baseline": {"recurrent": figures, "linear": figures, "majority": figures},
        "corpus": {
            "num_training": 11_000,
            "label_counts": {label: 1_000 - 100 * i for i, label in enumerate(labels)},
            "dropped": {"empty": 3},
            "num_tokens": 200_000,
            "unknown_share": 0.012,
            "truncated_share": 0.0,
        },
        "language_model": {
            "perplexity": 96.3,
            "num_rows": 40_000,
            "num_tokens": 800_000,
            "history": _perplexities(),
        },
        **{name: config[name] for name in ("seed", "text", "model", "training")},
    }
    (path / "model.json").write_text(json.dumps(metadata))
    rows = [
        {
            "epoch": epoch,
            "training_loss": 2 / epoch,
            "validation_log_loss": float("nan") if epoch == 1 else 0.6 + 1 / epoch,
            "validation_accuracy": 0.8 - 0.5 / epoch,
            "validation_macro_f1": 0.79 - 0.5 / epoch,
            "is_best": epoch in (1, 7),
        }
        for epoch in range(1, 9)
    ]
    pq.write_table(pa.Table.from_pylist(rows), path / "history.parquet")
    return path


def _perplexities() -> list[dict[str, Any]]:
    return [{"epoch": epoch, "perplexity": 90 + 300 / epoch} for epoch in range(1, 9)]


def language_model(path: Path, *, dropped: str = "empty text") -> Path:
    """`model.json` and `history.parquet` of a language model, as `pretrain` leaves them."""
    path.mkdir(parents=True)
    config = ExperimentConfig().to_dict()
    metadata = {
        "format_version": 2,
        "kind": "language",
        "vocabulary_size": 26_000,
        "metrics": {"log_loss": 4.57, "perplexity": 96.3},
        "best_epoch": 8,
        "corpus": {
            "num_training": 40_000,
            "num_validation": 1_000,
            "num_tokens": 800_000,
            "unknown_share": 0.012,
            "truncated_share": 0.0,
            "dropped": {dropped: 3},
        },
        **{name: config[name] for name in ("seed", "text", "model", "pretraining")},
    }
    (path / "model.json").write_text(json.dumps(metadata))
    pq.write_table(pa.Table.from_pylist(_perplexities()), path / "history.parquet")
    return path


def evaluation(path: Path, *, labels: tuple[str, ...] = ("sport", "money", "天气")) -> Path:
    """`metrics.json` and `errors.parquet`, as `evaluate` leaves them."""
    path.mkdir(parents=True)
    row = {"precision": 0.9, "recall": 0.8, "f1": 0.85}
    report = {
        "num_rows": 600,
        "accuracy": 0.9,
        "macro_f1": 0.89,
        "labels": labels,
        "per_label": {name: {**row, "support": 100 * (i + 1)} for i, name in enumerate(labels)},
        "confusion_matrix": [[90, 5, 5], [0, 190, 10], [1, 2, 297]],
    }
    (path / "metrics.json").write_text(json.dumps(report))
    errors = pa.table(
        {
            "text": [f"a text {HOSTILE[1]}"],
            "label": [labels[0]],
            "predicted_label": [labels[1]],
            "predicted_score": pa.array([0.97], pa.float32()),
            "file": ["in.parquet"],
        }
    )
    pq.write_table(errors, path / "errors.parquet")
    return path


def predictions(
    path: Path,
    *,
    labels: tuple[str, ...] = ("sport", "money", "天气"),
    name: str = "a.parquet",
    drift: bool = True,
    errors: tuple[str, ...] = (),
) -> Path:
    """`_manifest.json` of a run over three files."""
    path.mkdir(parents=True)
    settings = PredictionSettings(
        model="f00d", text_column="text", columns=None, top_k=None, min_score=None
    )
    parts = Parts()
    for i in range(3):
        part = Part(
            name=f"{i}/{name}",
            input=f"in/{i}/{name}",
            unit={},
            settings=plain(settings),
            rows_in=100,
            rows_out=100,
            rows_without_prediction={"null": i, "empty": 1},
        )
        sums = Sums(
            label_counts=Counter({label: 60 // (k + 1) for k, label in enumerate(labels)}),
            score_histogram=[0] * 6 + list(range(14)),
            num_tokens=2_000,
            num_unknown=60 + i,
        )
        parts.add(part, sums)
    compared = Drift(
        unknown_share=0.03,
        unknown_share_in_training=0.012,
        truncated_share=0.0,
        truncated_share_in_training=0.01,
        labels_moved=0.11,
        scores_moved=0.2,
        label_counts_in_training=dict.fromkeys(labels, 100),
        validation_score_histogram=[0] * 8 + [5] * 12,
    )
    run = Run(inputs=("in",), parts_written=3, errors=errors)
    write_manifest(
        LocalStorage(path), settings, parts, run, Size(1, 1), compared if drift else None
    )
    if not errors:
        (path / "_SUCCESS").touch()
    return path
