"""The state of an unfinished training: its last checkpoint, and the best model so far."""

from pathlib import Path

import ray.train

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import EncodedCorpus
from distlstm.model.checkpoint import load_history
from distlstm.model.loop import EpochResult
from distlstm.stages.run.output import Identity
from distlstm.stages.training.model_writer import write_checkpoint

RAY_RUN = "run"
"""Name of Ray Train's directory in the checkpoint directory."""


def last_checkpoint(checkpoints: Path) -> Path | None:
    """The last checkpoint that Ray Train has registered; None if there is none."""
    try:
        found = ray.train.Result.from_path(str(checkpoints / RAY_RUN)).checkpoint
    except (RuntimeError, ValueError, OSError):  # no epoch is finished yet
        return None
    return Path(found.path) if found is not None else None


def finished_epochs(checkpoints: Path) -> list[EpochResult]:
    """The epochs up to the last checkpoint."""
    checkpoint = last_checkpoint(checkpoints)
    return load_history(checkpoint) if checkpoint is not None else []


def write_best_so_far(
    path: Path, *, checkpoints: Path, corpus: EncodedCorpus, config: ExperimentConfig, run: Identity
) -> int | None:
    """Write a MODEL of the best epoch so far; returns its number, None if no epoch is finished."""
    checkpoint = last_checkpoint(checkpoints)
    if checkpoint is None:
        return None
    return write_checkpoint(path, checkpoint=checkpoint, corpus=corpus, config=config, run=run)
