"""The function that runs in each Ray Train worker, and the file that reports its progress."""

import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import torch
from ray.train.torch import get_device

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import EncodedCorpus
from distlstm.errors import RunError
from distlstm.model.checkpoint import restore_training, save_training
from distlstm.model.data_parallel import all_reduce, average, share_weights
from distlstm.model.ensemble import Calibration
from distlstm.model.loop import EpochResult, Training, Worker
from distlstm.model.metrics import Metrics
from distlstm.stages.run.events import EpochDone, Event, FirstStep, Note, Progress
from distlstm.stages.run.start_up import Stopwatch
from distlstm.stages.training.baseline import ensemble_linear
from distlstm.stages.training.job import TrainingJob

_SECONDS_BETWEEN_LINES = 0.3
_SECONDS_BETWEEN_CHECKPOINTS = 300.0


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """The settings of a worker, which are sent to its process."""

    corpus: Path
    config: ExperimentConfig
    init: Path | None
    """MODEL directory to continue from."""
    progress_file: Path
    cpus_per_worker: int


@dataclass(frozen=True)
class HandedOver:
    """A node ends soon: the training is saved, and goes on with workers on other nodes."""


class _HandOverError(Exception):
    """Ends the training in a worker after a checkpoint."""


@dataclass(frozen=True)
class WorkerFailure:
    """Why training cannot continue. It is returned because Ray would retry if it were raised."""

    message: str


def train_worker(settings: WorkerSettings) -> Calibration | WorkerFailure | HandedOver:
    """Train from the last checkpoint, if there is one, and report one after every epoch.

    Long epochs have checkpoints within, and so has one in which a node is drained.
    """
    watch = Stopwatch()
    torch.set_num_threads(settings.cpus_per_worker)
    worker = this_worker()
    job = TrainingJob(EncodedCorpus(settings.corpus), settings.config, worker, init=settings.init)
    _restore(job.training)
    watch.end("corpus and model")
    lines = _ProgressLines(settings.progress_file, job.training, watch, active=worker.rank == 0)
    try:
        for result in job.training.run(
            job.training_batches,
            job.validation_batches,
            on_step=lines.step,
            on_note=lines.note,
            checkpoints=_Checkpoints(job.training, worker),
        ):
            lines.epoch(result)
            metrics = {"epoch": result.epoch, "accuracy": result.validation.accuracy}
            report_checkpoint(job.training, metrics, worker)
    except RunError as error:
        return WorkerFailure(str(error))
    except _HandOverError:
        return HandedOver()
    if worker.rank == 0:
        ensemble_linear(job.corpus, settings.config)
    worker.all_reduce(np.zeros(1))  # a barrier: all wait until rank 0 has fitted the linear model
    return job.calibrate(job.linear_logits(ensemble_linear(job.corpus, settings.config)))


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


def _restore(training: Training) -> None:
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as directory:
            restore_training(training, Path(directory))


def report_checkpoint(training: Training, metrics: dict[str, Any], worker: Worker) -> None:
    """Report to Ray Train from every rank, with a checkpoint from rank 0."""
    if worker.rank != 0:
        ray.train.report(metrics)
        return
    with tempfile.TemporaryDirectory() as directory:
        save_training(training, Path(directory))
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint.from_directory(directory))


class _Checkpoints:
    """Saves within an epoch: some minutes after the last time, or if a node is drained."""

    def __init__(self, training: Training, worker: Worker) -> None:
        self.training = training
        self.worker = worker
        self.last, self.epochs = time.monotonic(), len(training.history)

    def are_due(self) -> bool:
        """Whether a node of the workers is drained, or the last checkpoint is some minutes old."""
        now, epochs = time.monotonic(), len(self.training.history)
        if epochs > self.epochs:
            self.last, self.epochs = now, epochs
        return _is_drained() or now - self.last > _SECONDS_BETWEEN_CHECKPOINTS

    def save(self) -> None:
        """Report a checkpoint; _HandOverError on all workers if a node of any is drained."""
        report_checkpoint(self.training, {"epoch": self.epochs}, self.worker)
        self.last = time.monotonic()
        if self.worker.all_reduce(np.array([float(_is_drained())])).any():
            raise _HandOverError


def _is_drained() -> bool:
    """Whether Ray Train has told this worker that a node of the workers ends soon."""
    return ray.train.get_preemption_info() is not None


class _ProgressLines:
    """Appends the progress to a file, which the command reads in another process."""

    def __init__(self, path: Path, training: Training, watch: Stopwatch, *, active: bool) -> None:
        self.path = path
        self.training = training
        self.watch = watch
        self.active = active
        self.last = 0.0

    def step(self, done: int, total: int) -> None:
        """Report a finished step, at most a few times a second."""
        now = time.monotonic()
        if self.last == 0.0:
            self.watch.end("first step")
            self._append({"first_step": self.watch.parts})
        if now - self.last >= _SECONDS_BETWEEN_LINES:
            self.last = now
            epoch = len(self.training.history) + 1
            self._append({"epoch": epoch, "of": self.training.num_epochs, "step": [done, total]})

    def epoch(self, result: EpochResult) -> None:
        """Report a finished epoch."""
        self._append({"of": self.training.num_epochs, "result": asdict(result)})

    def note(self, text: str) -> None:
        """Report a message for the user."""
        self._append({"note": text})

    def _append(self, row: dict[str, Any]) -> None:
        if self.active:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")


class ProgressFollower:
    """Reads the events that rank 0 appends to its progress file after this object is created."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.position = path.stat().st_size if path.exists() else 0

    def events(self) -> Iterator[Event]:
        """The events since the last call."""
        if not self.path.exists():
            return
        with self.path.open("rb") as file:
            file.seek(self.position)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self.position += len(line)
                yield _event(json.loads(line))


def _event(row: dict[str, Any]) -> Event:
    if "result" in row:
        metrics = Metrics(**row["result"].pop("validation"))
        return EpochDone(EpochResult(**row["result"], validation=metrics), row["of"])
    if "first_step" in row:
        return FirstStep(row["first_step"])
    if "note" in row:
        return Note(row["note"])
    done, total = row["step"]
    return Progress(f"epoch {row['epoch']} of up to {row['of']}", done, total, "steps")
