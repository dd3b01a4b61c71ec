"""The state of an unfinished training: its last checkpoint, and the best model so far."""

from pathlib import Path

import ray.train
from ray.train.v2._internal.exceptions import RayTrainError

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import EncodedCorpus
from distlstm.model.checkpoint import load_history
from distlstm.model.training import EpochResult
from distlstm.stages.run.output import Identity
from distlstm.stages.run.ray_storage import filesystem_of, path_of
from distlstm.stages.training.model_writer import write_checkpoint
from distlstm.stages.training.snapshot import mend_snapshot
from distlstm.storage import Directory, UnreachableError

RAY_RUN = "run"
"""Name of Ray Train's directory in the checkpoint directory."""


def last_checkpoint(checkpoints: Directory, run: str = RAY_RUN) -> ray.train.Checkpoint | None:
    """The last checkpoint that a run of Ray Train has registered; None if there is none."""
    try:
        return ray.train.Result.from_path(
            f"{path_of(checkpoints)}/{run}", storage_filesystem=filesystem_of(checkpoints)
        ).checkpoint
    except UnreachableError:
        raise
    # No epoch is finished yet, or Ray is just writing its list of checkpoints.
    except (RuntimeError, ValueError, OSError, RayTrainError):
        return None


def finished_epochs(checkpoints: Directory) -> list[EpochResult]:
    """The epochs up to the last checkpoint; Ray Train must not be running."""
    mend_snapshot(checkpoints.below(RAY_RUN))
    checkpoint = last_checkpoint(checkpoints)
    if checkpoint is None:
        return []
    with checkpoint.as_directory() as directory:
        return load_history(Path(directory), EpochResult)


def write_best_so_far(
    path: Path,
    *,
    checkpoints: Directory,
    corpus: EncodedCorpus,
    config: ExperimentConfig,
    init: Directory | None,
    run: Identity,
) -> int | None:
    """Write a MODEL of the best epoch so far; returns its number, None if no epoch is finished."""
    checkpoint = last_checkpoint(checkpoints)
    if checkpoint is None:
        return None
    with checkpoint.as_directory() as directory:
        return write_checkpoint(
            path,
            checkpoint=Path(directory),
            corpus=corpus,
            config=config,
            init=init,
            run=run,
        )
