"""Runs a training on Ray once its corpus is encoded, and writes the model."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ray.train
from ray.train.torch import TorchTrainer

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import EncodedCorpus
from distlstm.errors import RunError
from distlstm.model.checkpoint import load_history
from distlstm.model.ensemble import Calibration
from distlstm.model.training import EpochResult
from distlstm.stages.run.events import EpochDone, Event, Note, OnEvent, Progress
from distlstm.stages.run.files import BEST, CHECKPOINTS
from distlstm.stages.run.output import Identity, Work
from distlstm.stages.run.ray_storage import run_options
from distlstm.stages.run.session import Capacity, our_error, run_interruptibly
from distlstm.stages.training.attempts import fit_through_deaths
from distlstm.stages.training.baseline import final_linear, measure_baseline
from distlstm.stages.training.checkpoints import (
    RAY_RUN,
    finished_epochs,
    write_best_so_far,
)
from distlstm.stages.training.model_writer import write_model
from distlstm.stages.training.out_of_memory import is_out_of_memory, memory_advice
from distlstm.stages.training.process_group import ProcessGroup
from distlstm.stages.training.progress import progress_queue, received
from distlstm.stages.training.reservation import Reservation
from distlstm.stages.training.tracking import tracked
from distlstm.stages.training.worker import (
    HandedOver,
    WorkerFailure,
    WorkerSettings,
    train_worker,
)
from distlstm.storage import Directory, WorkingCopy
from distlstm.worker_range import WorkerRange

_MAX_FAILURES = 3
_SECONDS_BETWEEN_RESIZES = 15.0


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
        with (
            progress_queue() as queue,
            tracked(
                self.output, settings=self.identity, finished=finished, on_event=on_event
            ) as tracking,
        ):
            settings = WorkerSettings(
                corpus=self.corpus.storage,
                config=self.config,
                init=self.init,
                progress=queue,
                cpus_per_worker=capacity.cpus_per_worker,
            )
            checkpoint, calibration = self._fit(
                settings, workers, capacity, self._publishing(tracking)
            )
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
                run=self.identity,
            )
        self.work.publish()

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
            run=self.identity,
        )
        if epoch is not None:
            self.work.publish()
            where = self.output.storage.at(BEST)
            on_event(Note(f"The best model so far (epoch {epoch}) is in {where}."))

    def _fit(
        self,
        settings: WorkerSettings,
        workers: WorkerRange,
        capacity: Capacity,
        on_event: OnEvent,
    ) -> tuple[ray.train.Checkpoint, Calibration]:
        """Train to the end. Ray Train resumes from its last checkpoint, here and later."""

        def tell(error: BaseException) -> None:
            on_event(Note(f"Workers died ({_cause(error)}). Training goes on."))

        while True:
            try:
                result = fit_through_deaths(
                    partial(self._attempt, settings, workers, capacity, on_event),
                    checkpoints=self.checkpoints,
                    run=RAY_RUN,
                    on_death=tell,
                )
            except ray.train.TrainingFailedError as error:
                if is_out_of_memory(error):
                    num_rows = len(self.corpus.training)
                    raise RunError(memory_advice(self.config.training, num_rows)) from error
                raise our_error(error) or RunError(f"Training failed: {_cause(error)}") from error
            outcome: Calibration | WorkerFailure | HandedOver = result.return_value
            match outcome:
                case HandedOver():
                    on_event(Note("The training is saved, and goes on with workers elsewhere."))
                case WorkerFailure(message):
                    raise RunError(message)
                case _:
                    return result.checkpoint, outcome

    def _attempt(
        self,
        settings: WorkerSettings,
        workers: WorkerRange,
        capacity: Capacity,
        on_event: OnEvent,
    ) -> ray.train.Result:
        """Run Ray Train once."""
        resources = {"CPU": capacity.cpus_per_worker, **({"GPU": 1} if capacity.use_gpu else {})}
        trainer = TorchTrainer(
            train_worker,
            train_loop_config=settings,
            torch_config=ProcessGroup(),
            scaling_config=ray.train.ScalingConfig(
                num_workers=_elastic(workers),
                use_gpu=capacity.use_gpu,
                resources_per_worker=resources,
                elastic_resize_monitor_interval_s=_SECONDS_BETWEEN_RESIZES,
            ),
            run_config=ray.train.RunConfig(
                name=RAY_RUN,
                **run_options(self.checkpoints),
                callbacks=[Reservation(self.checkpoints.below(RAY_RUN))],
                failure_config=ray.train.FailureConfig(max_failures=_MAX_FAILURES),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            ),
        )

        def follow() -> None:
            self.work.check()
            for event in received(settings.progress):
                on_event(event)

        return run_interruptibly(trainer.fit, meanwhile=follow)


def _elastic(workers: WorkerRange) -> tuple[int, int]:
    """The range for Ray Train. A fixed number starts as such, but goes on with fewer."""
    least = 1 if workers.least == workers.most else max(1, workers.least)
    return least, workers.most


def _cause(error: BaseException) -> str:
    failures = getattr(error, "worker_failures", {})
    causes = [str(failure).strip().split("\n")[-1] for failure in failures.values()]
    return causes[0] if causes else str(error).strip().split("\n")[-1]
