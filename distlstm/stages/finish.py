"""From a training's last checkpoint to a MODEL directory."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.atomic import replace_file
from distlstm.config import ExperimentConfig
from distlstm.data.corpus import EncodedCorpus
from distlstm.model.calibration import Calibration
from distlstm.model.checkpoint import load_best_weights
from distlstm.model.classifier import Classifier
from distlstm.model.directory import Model, save_model
from distlstm.model.label_kind import label_kind
from distlstm.model.loop import EpochResult
from distlstm.stages.baseline import Baseline
from distlstm.stages.output import Identity

HISTORY_FILE = "history.parquet"


def write_model(
    path: Path,
    *,
    checkpoint: Path,
    history: list[EpochResult],
    corpus: EncodedCorpus,
    config: ExperimentConfig,
    calibration: Calibration,
    baseline: Baseline,
    run: Identity,
) -> None:
    """Write history and model; `model.json`, last, is what says that training is done.

    Args:
        path: the MODEL directory.
        checkpoint: a directory of `save_training`; its best weights are taken.
        history: the epochs of the training.
        corpus: what was trained on.
        config: what was asked for.
        calibration: of these weights, on validation.
        baseline: what simpler models reach there.
        run: the identity of the command, by which it is known again.
    """
    classifier = Classifier(
        config.model, vocab_size=len(corpus.vocabulary), num_labels=len(corpus.labels)
    )
    classifier.load_state_dict(load_best_weights(checkpoint))
    write_history(path / HISTORY_FILE, history)
    best = max((result for result in history if result.is_best), key=lambda result: result.epoch)
    facts: dict[str, Any] = {
        "metrics": {**asdict(calibration.metrics), "ece_uncalibrated": best.validation.ece},
        "validation_score_histogram": calibration.score_histogram,
        "best_epoch": best.epoch,
        "baseline": asdict(baseline),
        "corpus": asdict(corpus.summary),
        "run": run,
    }
    model = Model(
        config=config,
        classifier=classifier,
        vocabulary=corpus.vocabulary,
        labels=corpus.labels,
        temperature=calibration.temperature,
        kind=label_kind(corpus.kind, calibration.thresholds),
        facts=facts,
    )
    save_model(model, path)


def write_history(path: Path, history: list[EpochResult]) -> None:
    """A row per epoch, validation figures as `validation_` columns."""
    rows = []
    for result in history:
        row = asdict(result)
        figures = row.pop("validation")
        rows.append({**row, **{f"validation_{name}": value for name, value in figures.items()}})
    with replace_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)


def read_history(path: Path) -> list[dict[str, Any]]:
    """The rows that `write_history` wrote."""
    return list(pq.read_table(path).to_pylist())
