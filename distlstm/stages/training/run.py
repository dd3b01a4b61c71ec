"""Runs a training on Ray once its corpus is encoded, and writes the model."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ray.train

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import EncodedCorpus
from distlstm.model.checkpoint import load_history
from distlstm.model.ensemble import Calibration
from distlstm.model.training import EpochResult
from distlstm.stages.run.events import EpochDone, Event, Note, OnEvent, Progress
from distlstm.stages.run.files import BEST, CHECKPOINTS
from distlstm.stages.run.output import Identity, Work
from distlstm.stages.run.session import Capacity
from distlstm.stages.training.baseline import final_linear, measure_baseline
from distlstm.stages.training.checkpoints import finished_epochs, write_best_so_far
from distlstm.stages.training.fit import Fit
from distlstm.stages.training.model_writer import write_model
from distlstm.stages.training.out_of_memory import memory_advice
from distlstm.stages.training.progress import progress_queue
from distlstm.stages.training.tracking import tracked
from distlstm.stages.training.worker import WorkerSettings, train_worker
from distlstm.storage import Directory, WorkingCopy
from distlstm.worker_range import WorkerRange


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A training with an encoded corpus."""

    corpus: EncodedCorpus
    config: ExperimentConfig
    init: Directory | None
    output: WorkingCopy
    work: Work
    identity: Identity

    @property
    def checkpoints(self) -> Directory:
        """The directory of Ray Train, and of the corpus."""
        return self.output.storage.below(CHECKPOINTS)

    def train(self, capacity: Capacity, workers: WorkerRange, on_event: OnEvent) -> None:
        """Train on the cluster, measure the baselines, and write the model."""
        on_event(Progress(f"starting {workers} workers", 0, 1))
        finished = finished_epochs(self.checkpoints)
        with tracked(
            self.output, settings=self.identity, finished=finished, on_event=on_event
        ) as tracking:
            checkpoint, calibration = self._fit(capacity, workers, self._publishing(tracking))
            self._write(checkpoint, calibration, on_event)
        self.work.publish()

    def _fit(
        self, capacity: Capacity, workers: WorkerRange, on_event: OnEvent
    ) -> tuple[ray.train.Checkpoint, Calibration]:
        """Train; the last checkpoint, and how its weights are calibrated."""
        with progress_queue() as queue:
            settings = WorkerSettings(
                corpus=self.corpus.storage,
                config=self.config,
                init=self.init,
                progress=queue,
                cpus_per_worker=capacity.cpus_per_worker,
            )
            checkpoint, calibration = Fit(
                function=train_worker,
                settings=settings,
                progress=queue,
                checkpoints=self.checkpoints,
                workers=workers,
                capacity=capacity,
                memory_advice=partial(
                    memory_advice, self.config.training, len(self.corpus.training)
                ),
                check=self.work.check,
                on_event=on_event,
            ).run()
        return checkpoint, calibration

    def _write(
        self, checkpoint: ray.train.Checkpoint, calibration: Calibration, on_event: OnEvent
    ) -> None:
        """Measure the baselines, and write the model."""
        on_event(Progress("measuring the linear baseline", 0, 1))
        baseline = measure_baseline(self.corpus)
        linear = final_linear(self.corpus, self.config)
        on_event(Progress("measuring the linear baseline", 1, 1))
        with checkpoint.as_directory() as directory:
            write_model(
                self.output.path,
                checkpoint=Path(directory),
                history=load_history(Path(directory), EpochResult),
                corpus=self.corpus,
                config=self.config,
                calibration=calibration,
                linear=linear,
                baseline=baseline,
                init=self.init,
                run=self.identity,
            )

    def _publishing(self, on_event: OnEvent) -> OnEvent:
        """Also write to the storage, after each epoch, what other tools read."""

        def handle(event: Event) -> None:
            on_event(event)
            if isinstance(event, EpochDone):
                self.work.publish()

        return handle

    def keep_best(self, on_event: OnEvent) -> None:
        """Write a MODEL of the best epoch so far of an interrupted training."""
        epoch = write_best_so_far(
            self.output.path / BEST,
            checkpoints=self.checkpoints,
            corpus=self.corpus,
            config=self.config,
            init=self.init,
            run=self.identity,
        )
        if epoch is not None:
            self.work.publish()
            where = self.output.storage.at(BEST)
            on_event(Note(f"The best model so far (epoch {epoch}) is in {where}."))
