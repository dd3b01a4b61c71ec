"""A training that is not finished: its last checkpoint, and the best model so far."""

from pathlib import Path

import ray.train

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import EncodedCorpus
from distlstm.model.checkpoint import load_history, restore_training
from distlstm.model.loop import EpochResult, Worker
from distlstm.stages.baseline import measure_baseline
from distlstm.stages.finish import write_model
from distlstm.stages.output import Identity
from distlstm.stages.training_job import TrainingJob

RAY_RUN = "run"
"""Name of Ray Train's directory among the checkpoints."""


def last_checkpoint(checkpoints: Path) -> Path | None:
    """The last checkpoint that Ray Train has registered, if there is one."""
    try:
        found = ray.train.Result.from_path(str(checkpoints / RAY_RUN)).checkpoint
    except (RuntimeError, ValueError, OSError):  # no epoch has been finished yet
        return None
    return Path(found.path) if found is not None else None


def finished_epochs(checkpoints: Path) -> list[EpochResult]:
    """The epochs up to the last checkpoint."""
    checkpoint = last_checkpoint(checkpoints)
    return load_history(checkpoint) if checkpoint is not None else []


def write_best_so_far(
    path: Path, *, checkpoints: Path, corpus: EncodedCorpus, config: ExperimentConfig, run: Identity
) -> int | None:
    """Make the best epoch so far a MODEL; returns its number, None if no epoch is finished."""
    checkpoint = last_checkpoint(checkpoints)
    if checkpoint is None:
        return None
    job = TrainingJob(corpus, config, Worker())
    restore_training(job.training, checkpoint)
    best = job.training.best
    if best is None:
        return None
    write_model(
        path,
        checkpoint=checkpoint,
        history=job.training.history,
        corpus=corpus,
        config=config,
        calibration=job.calibrate(),
        baseline=measure_baseline(corpus, seed=config.seed),
        run=run,
    )
    return best.epoch
