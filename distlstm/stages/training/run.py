"""Runs a training on Ray once its corpus is encoded, and writes the model."""

from dataclasses import dataclass
from pathlib import Path

import ray.train
from ray.train.torch import TorchTrainer

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import EncodedCorpus
from distlstm.errors import RunError
from distlstm.model.checkpoint import load_history
from distlstm.model.ensemble import Calibration
from distlstm.stages.run.events import Note, OnEvent, Progress
from distlstm.stages.run.files import BEST, CHECKPOINTS
from distlstm.stages.run.output import Identity
from distlstm.stages.run.session import Capacity, our_error, run_interruptibly
from distlstm.stages.training.baseline import final_linear, measure_baseline
from distlstm.stages.training.checkpoints import (
    RAY_RUN,
    finished_epochs,
    last_checkpoint,
    write_best_so_far,
)
from distlstm.stages.training.model_writer import write_model
from distlstm.stages.training.out_of_memory import is_out_of_memory, memory_advice
from distlstm.stages.training.tracking import tracked
from distlstm.stages.training.worker import (
    HandedOver,
    ProgressFollower,
    WorkerFailure,
    WorkerSettings,
    train_worker,
)
from distlstm.worker_range import WorkerRange

_MAX_FAILURES = 3
_SECONDS_BETWEEN_RESIZES = 15.0


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A training with an encoded corpus."""

    corpus: EncodedCorpus
    config: ExperimentConfig
    init: Path | None
    output: Path
    identity: Identity

    def train(self, capacity: Capacity, workers: WorkerRange, on_event: OnEvent) -> None:
        """Train on the cluster, measure the baselines, and write the model."""
        settings = WorkerSettings(
            corpus=self.corpus.path,
            config=self.config,
            init=None if self.init is None else self.init.absolute(),
            progress_file=self.output / CHECKPOINTS / "progress.jsonl",
            cpus_per_worker=capacity.cpus_per_worker,
        )
        on_event(Progress(f"starting {workers} workers", 0, 1))
        finished = finished_epochs(self.output / CHECKPOINTS)
        with tracked(
            self.output, settings=self.identity, finished=finished, on_event=on_event
        ) as tracking:
            checkpoint, calibration = _fit(settings, workers, capacity, tracking)
        on_event(Progress("measuring the linear baseline", 0, 1))
        baseline = measure_baseline(self.corpus)
        linear = final_linear(self.corpus, self.config)
        on_event(Progress("measuring the linear baseline", 1, 1))
        write_model(
            self.output,
            checkpoint=checkpoint,
            history=load_history(checkpoint),
            corpus=self.corpus,
            config=self.config,
            calibration=calibration,
            linear=linear,
            baseline=baseline,
            run=self.identity,
        )

    def keep_best(self, on_event: OnEvent) -> None:
        """Write a MODEL of the best epoch so far of an interrupted training."""
        epoch = write_best_so_far(
            self.output / BEST,
            checkpoints=self.output / CHECKPOINTS,
            corpus=self.corpus,
            config=self.config,
            run=self.identity,
        )
        if epoch is not None:
            on_event(Note(f"The best model so far (epoch {epoch}) is in {self.output / BEST}."))


def _fit(
    settings: WorkerSettings, workers: WorkerRange, capacity: Capacity, on_event: OnEvent
) -> tuple[Path, Calibration]:
    """Train to the end. Ray Train resumes from its last checkpoint, here and in a later command.

    Workers may die as often as nodes do, if only there is a new checkpoint in between.
    """
    checkpoints = settings.progress_file.parent
    while True:
        before = last_checkpoint(checkpoints)
        try:
            result = _attempt(settings, workers, capacity, on_event)
        except ray.train.TrainingFailedError as error:
            if is_out_of_memory(error):
                num_rows = len(EncodedCorpus(settings.corpus).training)
                raise RunError(memory_advice(settings.config.training, num_rows)) from error
            known = our_error(error)
            if known is None and last_checkpoint(checkpoints) != before:
                on_event(Note(f"Workers died ({_cause(error)}). Training goes on."))
                continue
            raise known or RunError(f"Training failed: {_cause(error)}") from error
        outcome: Calibration | WorkerFailure | HandedOver = result.return_value
        match outcome:
            case HandedOver():
                on_event(Note("The training is saved, and goes on with workers on other nodes."))
            case WorkerFailure(message):
                raise RunError(message)
            case _:
                return Path(result.checkpoint.path), outcome


def _attempt(
    settings: WorkerSettings, workers: WorkerRange, capacity: Capacity, on_event: OnEvent
) -> ray.train.Result:
    """Run Ray Train once."""
    resources = {"CPU": capacity.cpus_per_worker, **({"GPU": 1} if capacity.use_gpu else {})}
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=settings,
        scaling_config=ray.train.ScalingConfig(
            num_workers=_elastic(workers),
            use_gpu=capacity.use_gpu,
            resources_per_worker=resources,
            elastic_resize_monitor_interval_s=_SECONDS_BETWEEN_RESIZES,
        ),
        run_config=ray.train.RunConfig(
            name=RAY_RUN,
            storage_path=str(settings.progress_file.parent),
            failure_config=ray.train.FailureConfig(max_failures=_MAX_FAILURES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )
    follower = ProgressFollower(settings.progress_file)

    def follow() -> None:
        for event in follower.events():
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
