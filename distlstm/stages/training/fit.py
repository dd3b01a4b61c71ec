"""Runs a worker function with Ray Train until it is done, through deaths and departing nodes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ray.train
from ray.train.torch import TorchTrainer
from ray.util.queue import Queue

from distlstm.errors import RunError
from distlstm.stages.run.events import Note, OnEvent
from distlstm.stages.run.ray_storage import run_options
from distlstm.stages.run.session import Capacity, our_error, run_interruptibly
from distlstm.stages.training.attempts import fit_through_deaths
from distlstm.stages.training.checkpoints import RAY_RUN
from distlstm.stages.training.epochs import HandedOver, WorkerFailure
from distlstm.stages.training.out_of_memory import is_out_of_memory
from distlstm.stages.training.process_group import ProcessGroup
from distlstm.stages.training.progress import received
from distlstm.stages.training.reservation import Reservation
from distlstm.stages.training.snapshot import Snapshot
from distlstm.storage import Directory
from distlstm.worker_range import WorkerRange

_MAX_FAILURES = 3
_SECONDS_BETWEEN_RESIZES = 15.0


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A data-parallel training on the cluster."""

    function: Callable[[Any], Any]
    """Runs in each worker; returns a result, or a `WorkerFailure` or `HandedOver`."""
    settings: Any
    """Its argument."""
    progress: Queue
    """To which the worker of rank 0 sends its events."""
    checkpoints: Directory
    workers: WorkerRange
    capacity: Capacity
    memory_advice: Callable[[], str]
    """What to do if the memory does not suffice."""
    check: Callable[[], None]
    """Called regularly; raises a RunError if the output was lost."""
    on_event: OnEvent

    def run(self) -> tuple[ray.train.Checkpoint, Any]:
        """Train to the end: the last checkpoint and the result of rank 0.

        Ray Train resumes from its last checkpoint, here and later.

        Raises:
            RunError: training diverged, or workers died too often.
        """
        while True:
            try:
                result = fit_through_deaths(
                    self._attempt, checkpoints=self.checkpoints, run=RAY_RUN, on_death=self._tell
                )
            except ray.train.TrainingFailedError as error:
                if is_out_of_memory(error):
                    raise RunError(self.memory_advice()) from error
                raise our_error(error) or RunError(f"Training failed: {_cause(error)}") from error
            match result.return_value:
                case HandedOver():
                    note = "The training is saved, and goes on with workers elsewhere."
                    self.on_event(Note(note))
                case WorkerFailure(message):
                    raise RunError(message)
                case outcome:
                    return result.checkpoint, outcome

    def _tell(self, error: BaseException) -> None:
        self.on_event(Note(f"Workers died ({_cause(error)}). Training goes on."))

    def _attempt(self) -> ray.train.Result:
        """Run Ray Train once."""
        capacity, workers = self.capacity, self.workers
        resources = {"CPU": capacity.cpus_per_worker, **({"GPU": 1} if capacity.use_gpu else {})}
        run = self.checkpoints.below(RAY_RUN)
        trainer = TorchTrainer(
            self.function,
            train_loop_config=self.settings,
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
                callbacks=[Reservation(run), Snapshot(run)],
                failure_config=ray.train.FailureConfig(max_failures=_MAX_FAILURES),
                checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            ),
        )
        return run_interruptibly(trainer.fit, meanwhile=self._follow)

    def _follow(self) -> None:
        self.check()
        for event in received(self.progress):
            self.on_event(event)


def _elastic(workers: WorkerRange) -> tuple[int, int]:
    """The range for Ray Train. A fixed number starts as such, but goes on with fewer."""
    least = 1 if workers.least == workers.most else max(1, workers.least)
    return least, workers.most


def _cause(error: BaseException) -> str:
    failures = getattr(error, "worker_failures", {})
    causes = [str(failure).strip().split("\n")[-1] for failure in failures.values()]
    return causes[0] if causes else str(error).strip().split("\n")[-1]
