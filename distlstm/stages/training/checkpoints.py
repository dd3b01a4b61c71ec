"""A training that is not finished: its last checkpoint, and the best model so far."""

from pathlib import Path

import ray.train

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import EncodedCorpus
from distlstm.model.checkpoint import load_history
from distlstm.model.loop import EpochResult
from distlstm.stages.run.output import Identity
from distlstm.stages.training.model_writer import write_checkpoint

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
    return write_checkpoint(path, checkpoint=checkpoint, corpus=corpus, config=config, run=run)
