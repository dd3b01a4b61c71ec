"""Writes a MODEL directory from the last checkpoint of a training."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import EncodedCorpus
from distlstm.model.checkpoint import load_best_weights, restore_training
from distlstm.model.classifier import Classifier
from distlstm.model.directory import TrainedModel, save_model
from distlstm.model.ensemble import Calibration
from distlstm.model.label_kind import label_kind
from distlstm.model.linear import LinearModel
from distlstm.model.loop import Worker
from distlstm.model.training import EpochResult
from distlstm.stages.run.files import HISTORY_FILE
from distlstm.stages.run.output import Identity
from distlstm.stages.training.baseline import (
    Baseline,
    ensemble_linear,
    final_linear,
    measure_baseline,
)
from distlstm.stages.training.history import write_history
from distlstm.stages.training.initial_model import language_figures
from distlstm.stages.training.job import TrainingJob
from distlstm.storage import Directory


def write_model(
    path: Path,
    *,
    checkpoint: Path,
    history: list[EpochResult],
    corpus: EncodedCorpus,
    config: ExperimentConfig,
    calibration: Calibration,
    linear: LinearModel | None,
    baseline: Baseline,
    init: Directory | None,
    run: Identity,
) -> None:
    """Write history and model. `model.json`, which marks a finished training, is written last.

    Args:
        path: the MODEL directory.
        checkpoint: a directory of `save_training`; its best weights are used.
        history: the epochs of the training.
        corpus: the training data.
        config: of the training.
        calibration: of these weights and the linear model, on the validation rows.
        linear: the linear model; None if the ensemble has none.
        baseline: metrics of the baselines on the validation rows.
        init: what the training began from; the figures of a language model are recorded.
        run: the identity of the command.
    """
    with torch.random.fork_rng():  # keeps the random state of a host such as a notebook
        classifier = Classifier(
            config.model, vocab_size=len(corpus.vocabulary), num_labels=len(corpus.labels)
        )
    classifier.load_state_dict(load_best_weights(checkpoint))
    linear = None if linear is None else linear.scaled(calibration.linear_weight)
    if calibration.offsets:
        linear = _shift(classifier, linear, calibration)
    write_history(path / HISTORY_FILE, history)
    best = best_epoch(history)
    metadata: dict[str, Any] = {
        "metrics": {
            **asdict(calibration.metrics),
            "ece_uncalibrated": history[best - 1].validation.ece,
        },
        "validation_score_histogram": calibration.score_histogram,
        "best_epoch": best,
        "baseline": {"recurrent": asdict(calibration.recurrent), **asdict(baseline)},
        "corpus": asdict(corpus.summary),
        "run": run,
    }
    figures = language_figures(init)
    if figures is not None:
        metadata["language_model"] = figures
    model = TrainedModel(
        config=config,
        classifier=classifier,
        vocabulary=corpus.vocabulary,
        labels=corpus.labels,
        temperature=calibration.temperature,
        linear=linear,
        cascade=calibration.cascade,
        kind=label_kind(corpus.kind, calibration.thresholds),
        metadata=metadata,
    )
    save_model(model, path)


def _shift(
    classifier: Classifier, linear: LinearModel | None, calibration: Calibration
) -> LinearModel | None:
    """Add the offsets of the labels to the linear model, or if there is none, to the classifier."""
    if linear is not None:
        return linear.shifted(calibration.offsets)
    # The logits of the classifier are divided by the temperature.
    shift = torch.tensor(calibration.offsets) * calibration.temperature
    classifier.output.bias.detach().add_(shift)
    return None


def write_checkpoint(
    path: Path,
    *,
    checkpoint: Path,
    corpus: EncodedCorpus,
    config: ExperimentConfig,
    init: Directory | None,
    run: Identity,
) -> int:
    """Write a MODEL of the best epoch of a checkpoint; returns the number of that epoch.

    The model is calibrated in this process.
    """
    with torch.random.fork_rng():
        job = TrainingJob(corpus, config, Worker())
    restore_training(job.training, checkpoint)
    write_model(
        path,
        checkpoint=checkpoint,
        history=job.training.history,
        corpus=corpus,
        config=config,
        calibration=job.calibrate(job.linear_logits(ensemble_linear(corpus, config))),
        linear=final_linear(corpus, config),
        baseline=measure_baseline(corpus),
        init=init,
        run=run,
    )
    return best_epoch(job.training.history)


def best_epoch(history: Sequence[EpochResult]) -> int:
    """Number of the best epoch, whose weights are kept."""
    return max(result.epoch for result in history if result.is_best)
