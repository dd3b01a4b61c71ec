"""Spreading bundles of units over a pool of Ray actors, each with a model of its own.

The actors are Ray's to place, to restart and to retry on. A bundle on which workers keep dying is
taken apart, so that only the unit that kills them is given up.
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

if TYPE_CHECKING:  # which imports torch; a command that only conducts needs none
    from distlstm.stages.prediction.predictor import Predictor

_Result = TypeVar("_Result", covariant=True)
_SECONDS_BETWEEN_LOOKS = 0.5
_RETRIES = 3
_BUNDLES_PER_WORKER = 4


class Work(Protocol[_Result]):
    """What a worker does with a bundle of units; another thread may look at its progress."""

    def __call__(self, units: Sequence[Unit]) -> _Result:
        """Do all of it."""
        ...

    @property
    def progress(self) -> Any:
        """How far it is with the units it was given last."""
        ...


@dataclass(frozen=True)
class Done(Generic[_Result]):
    """A bundle and what came of it."""

    units: list[Unit]
    result: _Result


@dataclass(frozen=True)
class GivenUp:
    """A unit on which workers died again and again."""

    unit: Unit

    @property
    def message(self) -> str:
        """Why, for the user."""
        return (
            f"{_RETRIES + 1} workers died on {self.unit.file.path}, of too little memory perhaps: "
            "run with fewer --workers, or cut the file into smaller row groups."
        )


@dataclass(frozen=True)
class Looked:
    """The progress of the workers on the bundles they hold, as far as they could be asked."""

    of_bundles: list[Any]


def bundles_for(num_workers: int, units: Sequence[Unit]) -> list[list[Unit]]:
    """Several bundles for each worker, so that all end at about the same time."""
    return group_small(units, num_groups=_BUNDLES_PER_WORKER * num_workers)


def map_bundles(
    make_work: "Callable[[Predictor], Work[_Result]]",
    bundles: Sequence[list[Unit]],
    *,
    model: Path,
    num_workers: int,
    capacity: Capacity,
) -> Iterator[Done[_Result] | GivenUp | Looked]:
    """Run `make_work(predictor)(units)` on every bundle; yields as they end, and looks between.

    Each worker loads the model once. What the work raises is raised here.
    """
    actor = ray.remote(
        num_cpus=capacity.cpus_per_worker,
        num_gpus=1 if capacity.use_gpu else 0,
        max_restarts=-1,
        max_task_retries=_RETRIES,
        max_concurrency=2,  # of which one answers looks
    )(_Worker)
    pool: _Pool[_Result] = _Pool(
        idle=[actor.remote(make_work, model, capacity) for _ in range(num_workers)],
        waiting=deque(bundles),
    )
    yield from pool.run()


@dataclass
class _Pool(Generic[_Result]):
    """Actors, the bundles they hold, and those that wait."""

    idle: list[Any]
    waiting: deque[list[Unit]]
    running: dict[Any, tuple[Any, list[Unit]]] = field(default_factory=dict)

    def run(self) -> Iterator[Done[_Result] | GivenUp | Looked]:
        while self.waiting or self.running:
            while self.waiting and self.idle:
                actor, units = self.idle.pop(), self.waiting.popleft()
                self.running[actor.work.remote(units)] = actor, units
            ended, _ = ray.wait(list(self.running), timeout=_SECONDS_BETWEEN_LOOKS)
            for task in ended:
                yield from self._take(task)
            if not ended:
                yield self._look()

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

    def _look(self) -> Looked:
        """Workers that are starting, or starting again, do not answer in time."""
        looks = [actor.progress.remote() for actor, _ in self.running.values()]
        answered, _ = ray.wait(looks, num_returns=len(looks), timeout=_SECONDS_BETWEEN_LOOKS)
        found = []
        for look in answered:
            try:
                found.append(ray.get(look))
            except RayActorError:
                continue
        return Looked(found)


class _Worker:
    """In the actor's process."""

    def __init__(
        self, make_work: "Callable[[Predictor], Work[Any]]", model: Path, capacity: Capacity
    ) -> None:
        from distlstm.stages.prediction.predictor import Predictor

        pa.set_cpu_count(capacity.cpus_per_worker)
        pa.set_memory_pool(pa.system_memory_pool())  # Arrow's own keeps what was freed
        predictor = Predictor.load(
            model, num_threads=capacity.cpus_per_worker, use_gpu=capacity.use_gpu
        )
        self.do = make_work(predictor)

    def work(self, units: list[Unit]) -> Any:
        return self.do(units)

    def progress(self) -> Any:
        return self.do.progress
