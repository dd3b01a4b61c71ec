"""The function that trains a classifier in each Ray Train worker."""

from dataclasses import dataclass

import numpy as np
import torch
from ray.util.queue import Queue

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import EncodedCorpus
from distlstm.model.ensemble import Calibration
from distlstm.stages.run.start_up import Stopwatch
from distlstm.stages.training.baseline import ensemble_linear
from distlstm.stages.training.epochs import HandedOver, WorkerFailure, run_epochs, this_worker
from distlstm.stages.training.job import TrainingJob
from distlstm.storage import Directory


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """The settings of a worker, which are sent to its process."""

    corpus: Directory
    config: ExperimentConfig
    init: Directory | None
    """MODEL directory to continue from, or a language model."""
    progress: Queue
    cpus_per_worker: int


def train_worker(settings: WorkerSettings) -> Calibration | WorkerFailure | HandedOver:
    """Train to the end, and calibrate."""
    watch = Stopwatch()
    torch.set_num_threads(settings.cpus_per_worker)
    worker = this_worker()
    job = TrainingJob(EncodedCorpus(settings.corpus), settings.config, worker, init=settings.init)
    unfinished = run_epochs(
        job.training,
        job.training_batches,
        job.validation_batches,
        progress=settings.progress,
        watch=watch,
    )
    if unfinished is not None:
        return unfinished
    if worker.rank == 0:
        ensemble_linear(job.corpus, settings.config)
    worker.all_reduce(np.zeros(1))  # a barrier: all wait until rank 0 has fitted the linear model
    return job.calibrate(job.linear_logits(ensemble_linear(job.corpus, settings.config)))
