"""The function that trains a language model in each Ray Train worker."""

from dataclasses import dataclass

import torch
from ray.util.queue import Queue

from distlstm.config import ExperimentConfig
from distlstm.data.text_corpus import EncodedTexts
from distlstm.stages.pretraining.job import PretrainingJob
from distlstm.stages.run.start_up import Stopwatch
from distlstm.stages.training.epochs import HandedOver, WorkerFailure, run_epochs, this_worker
from distlstm.storage import Directory


@dataclass(frozen=True, kw_only=True)
class PretrainingSettings:
    """The settings of a worker, which are sent to its process."""

    corpus: Directory
    config: ExperimentConfig
    time_budget: float | None
    """Seconds of training, without validation."""
    progress: Queue
    cpus_per_worker: int


def pretrain_worker(settings: PretrainingSettings) -> WorkerFailure | HandedOver | None:
    """Train to the end, or until the time is used."""
    watch = Stopwatch()
    torch.set_num_threads(settings.cpus_per_worker)
    job = PretrainingJob(
        EncodedTexts(settings.corpus),
        settings.config,
        this_worker(),
        time_budget=settings.time_budget,
    )
    return run_epochs(
        job.training,
        job.training_batches,
        job.validation_batches,
        progress=settings.progress,
        watch=watch,
    )
