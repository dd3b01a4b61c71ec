"""Distributes bundles of units over a pool of Ray actors, each with its own copy of the model.

A worker gets a bundle only when it has loaded the model, and a dead one is never waited for: its
bundle is queued again. While bundles wait, the pool asks Ray for as many workers as it may have:
an autoscaler adds nodes for them, and the pool grows as nodes join. A worker without work is ended,
so that its CPUs are free for others, or its node can go.

If workers keep dying on a bundle, its units are run one by one, so that only the unit that kills
them is given up.
"""

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import pyarrow as pa
import ray
from ray.exceptions import ObjectLostError, RayActorError, RayTaskError

from distlstm.data.units import Unit, group_small
from distlstm.errors import RunError
from distlstm.stages.run.events import Note
from distlstm.stages.run.models import model_directory
from distlstm.stages.run.nodes import nodes
from distlstm.stages.run.session import Capacity, our_error
from distlstm.stages.run.waiting import Waiting
from distlstm.storage import Directory
from distlstm.worker_range import WorkerRange

if TYPE_CHECKING:  # imports torch, which the command's own process does not need
    from distlstm.stages.prediction.predictor import Predictor

_Result = TypeVar("_Result", covariant=True)
_SECONDS_BETWEEN_LOOKS = 0.5
_SECONDS_PER_WORKER = 0.003
"""Added for each running worker, as each is asked: a command must have time for those that end."""
_SECONDS_TO_ANSWER = 0.5
_MAX_DEATHS = 4
_DEATHS_OF_BUNDLE = 2
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
    """A unit on which workers died in every attempt, on nodes that live on."""

    unit: Unit

    @property
    def message(self) -> str:
        """The cause and the remedy, for the user."""
        return (
            f"{_MAX_DEATHS} workers died on {self.unit.file.path}, probably out of memory. "
            "Use fewer --workers, or rewrite the file with smaller row groups."
        )


@dataclass(frozen=True)
class Looked:
    """The state of the pool."""

    of_bundles: list[Any]
    """The progress on each running bundle whose worker answered in time."""
    num_workers: int
    """Workers that have loaded the model."""
    num_wanted: int
    num_waiting: int
    """Bundles that no worker has begun."""


News = Done[_Result] | GivenUp | Looked | Note


def bundles_for(workers: WorkerRange, units: Sequence[Unit]) -> list[list[Unit]]:
    """Several bundles per worker, so that all workers finish at about the same time."""
    return group_small(units, num_groups=_BUNDLES_PER_WORKER * workers.most)


def map_bundles(
    make_work: "Callable[[Predictor], Work[_Result]]",
    bundles: Sequence[list[Unit]],
    *,
    model: Directory,
    workers: WorkerRange,
    capacity: Capacity,
) -> Iterator[News[_Result]]:
    """Run `make_work(predictor)(units)` on every bundle, and yield each one when it ends.

    Yields a `Looked` about twice a second, less often with hundreds of workers, and a `Note` if
    there is no worker. Each worker loads the model once. Errors of the work are raised here.
    """
    actor = ray.remote(
        num_cpus=capacity.cpus_per_worker,
        num_gpus=1 if capacity.use_gpu else 0,
        max_restarts=0,
        max_task_retries=0,
        max_concurrency=2,  # one thread works, one answers `progress`
    )(_Worker)
    pool: _Pool[_Result] = _Pool(
        start=lambda: actor.remote(make_work, model, capacity),
        most=workers.most,
        needs=str(capacity),
        waiting=deque(map(_Bundle, bundles)),
        no_worker=Waiting() if capacity.max_workers else Waiting(-math.inf),
    )
    try:
        yield from pool.run()
    finally:
        pool.end()


@dataclass
class _Bundle:
    """Units for one worker, and how many workers have died on them."""

    units: list[Unit]
    deaths: int = 0


@dataclass(frozen=True)
class _ReadyWorker:
    """An actor that has loaded the model."""

    actor: Any
    node: str
    """Id of its node."""


@dataclass
class _Pool(Generic[_Result]):
    """The workers that start, idle or run a bundle, and the waiting bundles."""

    start: Callable[[], Any]
    most: int
    needs: str
    """The resources of a worker, for messages."""
    waiting: deque[_Bundle]
    no_worker: Waiting
    starting: dict[Any, Any] = field(default_factory=dict)
    """Actors by the reference to the id of their node."""
    idle: list[_ReadyWorker] = field(default_factory=list)
    running: dict[Any, tuple[_ReadyWorker, _Bundle]] = field(default_factory=dict)
    deaths_at_start: int = 0
    """Actors that died before they had loaded the model, since one had."""
    next_look: float = 0.0
    """When the workers and the nodes are to be looked at."""
    ending: set[str] = field(default_factory=set)
    """Ids of the nodes that end soon, at the last look."""

    def run(self) -> Iterator[News[_Result]]:
        while self.waiting or self.running:
            self._assign()
            self._resize()
            for reference in self._wait():
                if reference in self.starting:
                    self._take_worker(reference)
                else:
                    yield from self._take_result(reference)
            if time.monotonic() >= self.next_look:
                yield self._look()
                yield from self.no_worker.notes(
                    f"{self.num_wanted} of {self.needs} each are asked for",
                    has_worker=bool(self.running or self.idle),
                )

    @property
    def num_wanted(self) -> int:
        return min(self.most, len(self.waiting) + len(self.running))

    def _wait(self) -> list[Any]:
        """Wait for the next end of a start or a bundle; all that have ended by then."""
        pending = [*self.starting, *self.running]
        ray.wait(pending, timeout=max(0.0, self.next_look - time.monotonic()))
        ended, _ = ray.wait(pending, num_returns=len(pending), timeout=0)
        return list(ended)

    def _assign(self) -> None:
        """Give waiting bundles to idle workers, except those on nodes that end soon."""
        for worker in [worker for worker in self.idle if worker.node in self.ending]:
            self._release(worker)
        while self.waiting and self.idle:
            worker, bundle = self.idle.pop(), self.waiting.popleft()
            self.running[worker.actor.work.remote(bundle.units)] = worker, bundle

    def _resize(self) -> None:
        """Start or end workers, so that there are as many as have work."""
        surplus = len(self.starting) + len(self.idle) + len(self.running) - self.num_wanted
        for _ in range(-surplus):
            actor = self.start()
            self.starting[actor.node.remote()] = actor
        for worker in self.idle[: max(0, surplus)]:
            self._release(worker)
            surplus -= 1
        for reference in list(self.starting)[: max(0, surplus)]:
            ray.kill(self.starting.pop(reference))

    def _release(self, worker: _ReadyWorker) -> None:
        self.idle.remove(worker)
        ray.kill(worker.actor)

    def _take_worker(self, reference: Any) -> None:
        actor = self.starting.pop(reference)
        try:
            self.idle.append(_ReadyWorker(actor, ray.get(reference)))
            self.deaths_at_start = 0
        except RayActorError as error:
            ray.kill(actor)
            if error.actor_init_failed:
                raise (our_error(error) or RunError(str(error))) from error
            self.deaths_at_start += 1
            if self.deaths_at_start >= _MAX_DEATHS + self.most:
                raise RunError(
                    f"{self.deaths_at_start} workers died while they loaded the model, probably "
                    "out of memory. Use fewer --workers."
                ) from error

    def _take_result(self, reference: Any) -> Iterator[Done[_Result] | GivenUp]:
        worker, bundle = self.running.pop(reference)
        try:
            result = ray.get(reference)
        except RayTaskError as error:
            raise (our_error(error) or RunError(str(error.cause))) from error
        except (RayActorError, ObjectLostError):
            ray.kill(worker.actor)  # it may live on a node that only this process cannot reach
            yield from self._requeue(bundle, blamed=worker.node in nodes())
        else:
            self.idle.append(worker)
            yield Done(bundle.units, result)

    def _requeue(self, bundle: _Bundle, *, blamed: bool) -> Iterator[GivenUp]:
        """Queue a bundle whose worker has died; the bundle is not to blame for its node's end."""
        bundle.deaths += blamed
        alone = len(bundle.units) == 1
        if alone and bundle.deaths >= _MAX_DEATHS:
            yield GivenUp(bundle.units[0])
        elif not alone and bundle.deaths >= _DEATHS_OF_BUNDLE:
            self.waiting.extendleft(_Bundle([unit]) for unit in reversed(bundle.units))
        else:
            self.waiting.appendleft(bundle)

    def _look(self) -> Looked:
        """Ask all busy workers for their progress, and Ray for the nodes that end soon."""
        self.ending = {name for name, node in nodes().items() if node.is_drained}
        calls = [worker.actor.progress.remote() for worker, _ in self.running.values()]
        answered = []
        if calls:
            answered, _ = ray.wait(calls, num_returns=len(calls), timeout=_SECONDS_TO_ANSWER)
        found = []
        for call in answered:
            try:
                found.append(ray.get(call))
            except RayActorError:
                continue
        pause = _SECONDS_BETWEEN_LOOKS + _SECONDS_PER_WORKER * len(self.running)
        self.next_look = time.monotonic() + pause
        return Looked(
            found,
            num_workers=len(self.running) + len(self.idle),
            num_wanted=self.num_wanted,
            num_waiting=len(self.waiting),
        )

    def end(self) -> None:
        """End all workers; with another program's Ray, they would live on."""
        workers = [*self.idle, *(worker for worker, _ in self.running.values())]
        for actor in [*self.starting.values(), *(worker.actor for worker in workers)]:
            ray.kill(actor)


class _Worker:
    """Loads the model and runs the work on bundles."""

    def __init__(
        self, make_work: "Callable[[Predictor], Work[Any]]", model: Directory, capacity: Capacity
    ) -> None:
        from distlstm.stages.prediction.predictor import Predictor

        pa.set_cpu_count(capacity.cpus_per_worker)
        pa.set_memory_pool(pa.system_memory_pool())  # Arrow's default pool keeps freed memory
        with model_directory(model) as path:
            predictor = Predictor.load(
                path, num_threads=capacity.cpus_per_worker, use_gpu=capacity.use_gpu
            )
        self.do = make_work(predictor)

    def node(self) -> str:
        """The id of its node; the answer comes when the model is loaded."""
        return str(ray.get_runtime_context().get_node_id())

    def work(self, units: list[Unit]) -> Any:
        return self.do(units)

    def progress(self) -> Any:
        return self.do.progress
