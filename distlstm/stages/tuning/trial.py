"""Runs the trials of a study in its workers; each is a training that reports after every epoch."""

import copy
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray.train
import ray.tune
import torch
from ray.train.torch import TorchTrainer
from ray.tune.integration.ray_train import TuneReportCallback

from distlstm.config import ExperimentConfig
from distlstm.data.batching import INFERENCE_LIMITS, cut_by_length
from distlstm.data.corpus import EncodedCorpus
from distlstm.data.shards import Shards
from distlstm.errors import RunError, UserError
from distlstm.model.checkpoint import restore_training, save_training
from distlstm.model.classifier import Classifier
from distlstm.model.loop import Worker
from distlstm.model.metrics import Metrics
from distlstm.model.training import EpochResult, predict
from distlstm.stages.run.ray_storage import checkpoint_at, run_options
from distlstm.stages.training.attempts import fit_through_deaths
from distlstm.stages.training.baseline import ensemble_linear
from distlstm.stages.training.epochs import report_checkpoint, this_worker
from distlstm.stages.training.job import ShardBatches, TrainingJob
from distlstm.stages.training.out_of_memory import is_out_of_memory, memory_advice
from distlstm.stages.training.process_group import ProcessGroup
from distlstm.stages.training.reservation import Reservation
from distlstm.stages.training.snapshot import Snapshot
from distlstm.stages.tuning.resources import TrialResources
from distlstm.stages.tuning.study import TrialReport
from distlstm.storage import Directory, storage_at

FAILURE = "failure"
"""Key of the error message in the report of a failed trial."""
_TIMED_TOKENS, _TIMED_PASSES = 40_000, 2


@dataclass(frozen=True, kw_only=True)
class TrialSettings:
    """The settings that all trials of a study share; they are sent to the trials' processes."""

    corpus: Directory
    config: ExperimentConfig
    init: Directory | None
    """Language model to begin with."""
    resources: TrialResources
    directory: Directory
    """Storage of Ray Train, which runs inside trials of several workers."""


def run_trial(proposal: dict[str, Any], *, settings: TrialSettings) -> None:
    """Train one proposal in a Tune worker, and report a checkpoint after every epoch.

    An error is reported and not raised, because Ray would retry the trial. Ray retries only after a
    process has died, from the last checkpoint.
    """
    try:
        if settings.resources.num_workers == 1:
            _train_here(proposal, settings)
        else:
            _train_in_parallel(proposal, settings)
    except Exception as error:
        ray.tune.report({FAILURE: _reason(error, proposal, settings)})


def _train_here(proposal: dict[str, Any], settings: TrialSettings) -> None:
    resources = settings.resources
    worker = Worker(device=torch.device("cuda" if resources.use_gpu else "cpu"))
    torch.set_num_threads(resources.cpus_per_worker)
    trial = _Trial(proposal, settings, worker, ray.tune.get_checkpoint())
    for report in trial.run():
        with tempfile.TemporaryDirectory() as directory:
            save_training(trial.job.training, Path(directory))
            saved = ray.tune.Checkpoint.from_directory(directory)
            ray.tune.report(asdict(report), checkpoint=saved)


def _train_in_parallel(proposal: dict[str, Any], settings: TrialSettings) -> None:
    """Run Ray Train inside the trial; it resumes from its own checkpoints."""
    run = str(proposal["number"])
    result = fit_through_deaths(
        lambda: _trainer(proposal, settings, run).fit(), checkpoints=settings.directory, run=run
    )
    if result.return_value is not None:
        raise RunError(result.return_value)


def _trainer(proposal: dict[str, Any], settings: TrialSettings, run: str) -> TorchTrainer:
    resources, directory = settings.resources, settings.directory.below(run)
    return TorchTrainer(
        _trial_worker,
        train_loop_config={"proposal": proposal, "settings": settings},
        torch_config=ProcessGroup(),
        scaling_config=ray.train.ScalingConfig(
            num_workers=resources.num_workers,
            use_gpu=resources.use_gpu,
            resources_per_worker=resources.of_worker,
        ),
        run_config=ray.train.RunConfig(
            name=run,
            **run_options(settings.directory),
            callbacks=[TuneReportCallback(), Reservation(directory), Snapshot(directory)],
            failure_config=ray.train.FailureConfig(max_failures=2),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )


def _trial_worker(arguments: dict[str, Any]) -> str | None:
    """A Ray Train worker of a trial; returns the error if the trial fails, else None."""
    proposal, settings = arguments["proposal"], arguments["settings"]
    torch.set_num_threads(settings.resources.cpus_per_worker)
    worker = this_worker()
    try:
        trial = _Trial(proposal, settings, worker, ray.train.get_checkpoint())
        for report in trial.run():
            report_checkpoint(trial.job.training, asdict(report), worker)
    except (RunError, UserError) as error:
        return str(error)
    return None


class _Trial:
    """The training of one proposal, in one worker."""

    def __init__(
        self,
        proposal: dict[str, Any],
        settings: TrialSettings,
        worker: Worker,
        checkpoint: ray.train.Checkpoint | None,
    ) -> None:
        """Begin, or resume: from this checkpoint, else from one of an earlier command."""
        self.started = time.time()
        config = settings.config.with_values(proposal["parameters"])
        self.job = TrainingJob(EncodedCorpus(settings.corpus), config, worker, init=settings.init)
        if checkpoint is None and proposal["checkpoint"] is not None:
            checkpoint = checkpoint_at(storage_at(proposal["checkpoint"]))
        if checkpoint is not None:
            with checkpoint.as_directory() as directory:
                restore_training(self.job.training, Path(directory))
        self.linear_logits = self.job.linear_logits(ensemble_linear(self.job.corpus, config))
        self.rows_per_second = 0.0

    def run(self) -> Iterator[TrialReport]:
        """Train to the end; yields after every epoch the metrics of a model with its weights."""
        job, began = self.job, time.perf_counter()
        for result in job.training.run(job.training_batches, job.validation_batches):
            weights = job.training.model.applied_weights()
            metrics = job.calibrate(self.linear_logits, weights=weights).metrics
            seconds = time.perf_counter() - began
            if not self.rows_per_second:
                self.rows_per_second = rows_per_second(
                    job.training.model, job.corpus.validation, device=job.worker.device
                )
            yield self._report(result, metrics, seconds)
            began = time.perf_counter()

    def _report(self, result: EpochResult, metrics: Metrics, seconds: float) -> TrialReport:
        training = self.job.training
        started, self.started = self.started, time.time()
        return TrialReport(
            epoch=result.epoch,
            num_epochs=training.num_epochs,
            accuracy=metrics.accuracy,
            macro_f1=metrics.macro_f1,
            loss=metrics.log_loss,
            training_loss=result.training_loss,
            is_best=result.is_best,
            finished=training.finished,
            started=started,
            ended=self.started,
            seconds=seconds,
            worker=f"{socket.gethostname()} {os.getpid()}",
            rows_per_second=self.rows_per_second,
            num_parameters=sum(p.numel() for p in training.model.parameters()),
        )


def rows_per_second(model: Classifier, rows: Shards, *, device: torch.device) -> float:
    """Rows per second that a worker classifies with this model, without tokenisation.

    This is the faster of two passes over rows of about 40,000 tokens, batched as in prediction. On
    CPUs, the processor time of this process is measured, so other processes do not matter.
    """
    applied = copy.deepcopy(model).for_inference(model.recurrent_dtype)
    count = min(len(rows), max(1, int(_TIMED_TOKENS / max(1.0, float(np.mean(rows.lengths))))))
    sample = np.linspace(0, len(rows) - 1, count).astype(np.int64)
    cut = cut_by_length(sample, rows.lengths, INFERENCE_LIMITS["cpu"])
    batches = ShardBatches(rows, [(part, np.ones(len(part), np.float32)) for part in cut])
    clock = time.perf_counter if device.type == "cuda" else _cpu_seconds
    seconds = []
    for _ in range(_TIMED_PASSES):
        started = clock()
        for _ in predict(applied, batches, device=device):
            pass
        seconds.append(clock() - started)
    return count / max(min(seconds), 1e-9)


def _cpu_seconds() -> float:
    return time.process_time() / torch.get_num_threads()


def _reason(error: Exception, proposal: dict[str, Any], settings: TrialSettings) -> str:
    """The message of an error, on one line."""
    if is_out_of_memory(error):
        config = settings.config.with_values(proposal["parameters"])
        return memory_advice(config.training, len(EncodedCorpus(settings.corpus).training))
    if isinstance(error, RunError | UserError):
        return str(error)
    last = (str(error).strip() or "no message").split("\n")[-1]
    return f"{type(error).__name__}: {last[:500]}"
