"""Distributes bundles of units over a pool of Ray actors, each with its own copy of the model.

Ray places and restarts the actors and retries their tasks. If workers keep dying on a bundle, its
units are run one by one, so that only the unit that kills them is given up.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import pyarrow as pa
import ray
from ray.exceptions import RayActorError, RayTaskError

from distlstm.data.units import Unit, group_small
from distlstm.errors import RunError
from distlstm.stages.run.session import Capacity, our_error

if TYPE_CHECKING:  # imports torch, which the command's own process does not need
    from distlstm.stages.prediction.predictor import Predictor

_Result = TypeVar("_Result", covariant=True)
_SECONDS_BETWEEN_POLLS = 0.5
_RETRIES = 3
_BUNDLES_PER_WORKER = 4


class Work(Protocol[_Result]):
    """What a worker does with a bundle of units; another thread may read `progress` meanwhile."""

    def __call__(self, units: Sequence[Unit]) -> _Result:
        """Process the whole bundle."""
        ...

    @property
    def progress(self) -> Any:
        """Progress on the current bundle."""
        ...


@dataclass(frozen=True)
class Done(Generic[_Result]):
    """A finished bundle and its result."""

    units: list[Unit]
    result: _Result


@dataclass(frozen=True)
class GivenUp:
    """A unit on which workers died in every attempt."""

    unit: Unit

    @property
    def message(self) -> str:
        """The cause and the remedy, for the user."""
        return (
            f"{_RETRIES + 1} workers died on {self.unit.file.path}, probably out of memory. "
            "Use fewer --workers, or rewrite the file with smaller row groups."
        )


@dataclass(frozen=True)
class Looked:
    """The progress on each running bundle whose worker answered in time."""

    of_bundles: list[Any]


def bundles_for(num_workers: int, units: Sequence[Unit]) -> list[list[Unit]]:
    """Several bundles per worker, so that all workers finish at about the same time."""
    return group_small(units, num_groups=_BUNDLES_PER_WORKER * num_workers)


def map_bundles(
    make_work: "Callable[[Predictor], Work[_Result]]",
    bundles: Sequence[list[Unit]],
    *,
    model: Path,
    num_workers: int,
    capacity: Capacity,
) -> Iterator[Done[_Result] | GivenUp | Looked]:
    """Run `make_work(predictor)(units)` on every bundle, and yield each one when it ends.

    Yields a `Looked` whenever half a second passes without a finished bundle. Each worker loads the
    model once. Errors of the work are raised here.
    """
    actor = ray.remote(
        num_cpus=capacity.cpus_per_worker,
        num_gpus=1 if capacity.use_gpu else 0,
        max_restarts=-1,
        max_task_retries=_RETRIES,
        max_concurrency=2,  # one thread works, one answers `progress`
    )(_Worker)
    pool: _Pool[_Result] = _Pool(
        idle=[actor.remote(make_work, model, capacity) for _ in range(num_workers)],
        waiting=deque(bundles),
    )
    yield from pool.run()


@dataclass
class _Pool(Generic[_Result]):
    """The actors, their running bundles, and the waiting bundles."""

    idle: list[Any]
    waiting: deque[list[Unit]]
    running: dict[Any, tuple[Any, list[Unit]]] = field(default_factory=dict)

    def run(self) -> Iterator[Done[_Result] | GivenUp | Looked]:
        while self.waiting or self.running:
            while self.waiting and self.idle:
                actor, units = self.idle.pop(), self.waiting.popleft()
                self.running[actor.work.remote(units)] = actor, units
            ended, _ = ray.wait(list(self.running), timeout=_SECONDS_BETWEEN_POLLS)
            for task in ended:
                yield from self._take(task)
            if not ended:
                yield self._poll()

    def _take(self, task: Any) -> Iterator[Done[_Result] | GivenUp]:
        actor, units = self.running.pop(task)
        self.idle.append(actor)
        try:
            yield Done(units, ray.get(task))
        except RayTaskError as error:
            raise (our_error(error) or RunError(str(error.cause))) from error
        except RayActorError as error:
            if error.actor_init_failed:
                raise (our_error(error) or RunError(str(error))) from error
            if len(units) == 1:
                yield GivenUp(units[0])
            else:
                self.waiting.extendleft([unit] for unit in reversed(units))

    def _poll(self) -> Looked:
        """Ask all busy workers for their progress; starting workers do not answer in time."""
        calls = [actor.progress.remote() for actor, _ in self.running.values()]
        answered, _ = ray.wait(calls, num_returns=len(calls), timeout=_SECONDS_BETWEEN_POLLS)
        found = []
        for call in answered:
            try:
                found.append(ray.get(call))
            except RayActorError:
                continue
        return Looked(found)


class _Worker:
    """The actor: loads the model and runs the work on bundles."""

    def __init__(
        self, make_work: "Callable[[Predictor], Work[Any]]", model: Path, capacity: Capacity
    ) -> None:
        from distlstm.stages.prediction.predictor import Predictor

        pa.set_cpu_count(capacity.cpus_per_worker)
        pa.set_memory_pool(pa.system_memory_pool())  # Arrow's default pool keeps freed memory
        predictor = Predictor.load(
            model, num_threads=capacity.cpus_per_worker, use_gpu=capacity.use_gpu
        )
        self.do = make_work(predictor)

    def work(self, units: list[Unit]) -> Any:
        return self.do(units)

    def progress(self) -> Any:
        return self.do.progress
