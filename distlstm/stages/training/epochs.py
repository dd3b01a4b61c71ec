"""The epochs of a training in a Ray Train worker: from the last checkpoint, with one after each.

Classifiers and language models are trained alike.
"""

import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
from ray.train.torch import get_device
from ray.util.queue import Queue

from distlstm.errors import RunError
from distlstm.model.batch import Batch
from distlstm.model.checkpoint import restore_training, save_training
from distlstm.model.data_parallel import all_reduce, average, share_weights
from distlstm.model.loop import Batches, EpochLoop, Worker
from distlstm.stages.run.start_up import Stopwatch
from distlstm.stages.training.progress import ProgressSender

_SECONDS_BETWEEN_CHECKPOINTS = 300.0


@dataclass(frozen=True)
class HandedOver:
    """A node ends soon: the training is saved, and goes on with workers on other nodes."""


class _HandOverError(Exception):
    """Ends the training in a worker after a checkpoint."""


@dataclass(frozen=True)
class WorkerFailure:
    """Why training cannot continue. It is returned because Ray would retry if it were raised."""

    message: str


def run_epochs(
    training: EpochLoop[Any, Any],
    training_batches: Callable[[int], Batches],
    validation_batches: Callable[[], Iterable[Batch]],
    *,
    progress: Queue,
    watch: Stopwatch,
) -> WorkerFailure | HandedOver | None:
    """Train from the last checkpoint, if there is one, and report one after every epoch.

    Long epochs have checkpoints within, and so has one in which a node is drained. The result is
    None if all epochs are done.
    """
    worker = training.worker
    _restore(training)
    watch.end("corpus and model")
    sender = ProgressSender(progress, training, watch, active=worker.rank == 0)
    try:
        for result in training.run(
            training_batches,
            validation_batches,
            on_step=sender.step,
            on_note=sender.note,
            checkpoints=_Checkpoints(training, worker, sender),
        ):
            sender.epoch(result)
            sender.checkpoint(report_checkpoint(training, {"epoch": result.epoch}, worker))
    except RunError as error:
        return WorkerFailure(str(error))
    except _HandOverError:
        return HandedOver()
    return None


def this_worker() -> Worker:
    """The rank and device that Ray Train has given this process."""
    context = ray.train.get_context()
    alone = Worker(device=get_device())
    if context.get_world_size() == 1:
        return alone
    return replace(
        alone,
        rank=context.get_world_rank(),
        world_size=context.get_world_size(),
        share_weights=share_weights,
        average=average,
        all_reduce=partial(all_reduce, device=alone.device),
    )


def _restore(training: EpochLoop[Any, Any]) -> None:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as directory:
            restore_training(training, Path(directory))


def report_checkpoint(
    training: EpochLoop[Any, Any], metrics: dict[str, Any], worker: Worker
) -> float:
    """Report to Ray Train from every rank, with a checkpoint from rank 0; the seconds it takes."""
    started = time.monotonic()
    if worker.rank != 0:
        ray.train.report(metrics)
    else:
        with tempfile.TemporaryDirectory() as directory:
            save_training(training, Path(directory))
            ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(directory))
    return time.monotonic() - started


class _Checkpoints:
    """Saves within an epoch: some minutes after the last time, or if a node is drained."""

    def __init__(
        self, training: EpochLoop[Any, Any], worker: Worker, sender: ProgressSender
    ) -> None:
        self.training = training
        self.worker = worker
        self.sender = sender
        self.last, self.epochs = time.monotonic(), len(training.history)

    def are_due(self) -> bool:
        """Whether a node of the workers is drained, or the last checkpoint is some minutes old."""
        now, epochs = time.monotonic(), len(self.training.history)
        if epochs > self.epochs:
            self.last, self.epochs = now, epochs
        return _is_drained() or now - self.last > _SECONDS_BETWEEN_CHECKPOINTS

    def save(self) -> None:
        """Report a checkpoint; _HandOverError on all workers if a node of any is drained."""
        seconds = report_checkpoint(self.training, {"epoch": self.epochs}, self.worker)
        self.sender.checkpoint(seconds)
        self.last = time.monotonic()
        if self.worker.all_reduce(np.array([float(_is_drained())])).any():
            raise _HandOverError


def _is_drained() -> bool:
    """Whether Ray Train has told this worker that a node of the workers ends soon."""
    return ray.train.get_preemption_info() is not None
