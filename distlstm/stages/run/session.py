"""The connection to Ray: an embedded one that we start, or a running cluster.

An embedded Ray requires a token that only its command has, and ends with the command.
Ray's own output goes to its session logs; its errors are raised as ours.
"""

import contextlib
import ctypes
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import ray
from ray._private import ray_constants
from ray.exceptions import ActorHandleNotFoundError

from distlstm.errors import RunError, UserError
from distlstm.stages.run.events import OnEvent
from distlstm.stages.run.host import silenced
from distlstm.stages.run.nodes import can_be_added, nodes, reported_changes
from distlstm.worker_range import WorkerRange

_Result = TypeVar("_Result")
_SECONDS_TO_END = 20.0


@dataclass(frozen=True, kw_only=True)
class Resources:
    """The resources that a command may use. They come from its options, never from a config."""

    workers: WorkerRange | None = None
    """None: the stage chooses by the size of the cluster."""
    use_gpu: bool | None = None
    """None: use GPUs if the cluster has them."""
    cpus_per_worker: int = 1
    address: str | None = None
    """Address of a running cluster; None: RAY_ADDRESS, else an embedded Ray."""
    show_ray_output: bool = False
    """Show Ray's own output in the terminal."""
    with_dashboard: bool = False
    """Start an embedded Ray with its dashboard. Ray Train inside Ray Tune needs it: without it, a
    stopped trial never frees the CPUs of its workers."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """The resources of the cluster, and those that each worker of this command takes."""

    num_cpus: int
    num_gpus: int
    cpus_per_worker: int
    use_gpu: bool
    max_workers: int
    """The number of workers that fit at once; each needs all its CPUs on one node."""
    can_grow: bool = False
    """Whether an autoscaler adds nodes for workers that wait."""

    def workers(
        self, wanted: WorkerRange | None, *, default: int, waits: bool = False
    ) -> WorkerRange:
        """How many workers the command may have.

        A command that `waits` runs with any number of workers, and asks the autoscaler, if there is
        one, for nodes for those that are wanted and do not fit.

        Raises:
            UserError: even the least do not fit; the message lists the resources.
        """
        if wanted is not None and waits and self.can_grow:
            return wanted
        most = min(default, self.max_workers)
        found = WorkerRange(most, most) if wanted is None else wanted
        if found.least > self.max_workers or found.most < 1:
            gpus = f" and {self.num_gpus} GPUs" if self.use_gpu else ""
            grow = " To ask the autoscaler for nodes, give --workers, such as 1:8."
            raise UserError(
                f"{max(1, found.least)} workers of {self} each do not fit: Ray has "
                f"{self.num_cpus} CPUs{gpus}. Lower --workers or --cpus-per-worker."
                f"{grow if waits and self.can_grow else ''}"
            )
        return found

    def __str__(self) -> str:
        """The resources of a worker, for messages."""
        return f"{self.cpus_per_worker} CPUs{' and a GPU' if self.use_gpu else ''}"


@contextlib.contextmanager
def ray_session(resources: Resources, on_event: OnEvent) -> Iterator[Capacity]:
    """Connect to Ray for a block, without output, and yield the capacity of the cluster.

    Nodes that are lost, drained or added meanwhile are reported.

    If this process is connected already, that connection is used, and stays. `api.arguments.called`
    restores what Ray changes in the process.

    Raises:
        UserError: there is no cluster at the address, or a GPU was asked for and there is none.
    """
    with contextlib.nullcontext() if resources.show_ray_output else silenced():
        if ray.is_initialized():
            with reported_changes(on_event):
                yield _capacity(resources)
            return
        try:
            _connect(resources)
            with reported_changes(on_event):
                yield _capacity(resources)
        finally:
            ray.shutdown()


@contextlib.contextmanager
def shared_ray(resources: Resources) -> Iterator[None]:
    """Keep one Ray for several stages in a block; each stage uses `ray_session`."""
    try:
        with silenced():
            _connect(resources)
        yield
    finally:
        with silenced():
            ray.shutdown()


def _connect(resources: Resources) -> None:
    address = resources.address or os.environ.get("RAY_ADDRESS")
    if address is not None:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = str(error).strip().split("\n")[0]
            raise UserError(f"Cannot connect to a Ray cluster at {address}: {reason}") from error
        return
    try:
        _start(resources)
    except Exception:  # on a busy machine, an agent may need more than the 15 s that Ray gives it
        ray.shutdown()
        try:
            _start(resources)
        except Exception as error:
            reason = str(error).strip().split("\n")[0]
            raise RunError(f"Ray could not be started here: {reason}. Try again.") from error


def _start(resources: Resources) -> None:
    with _on_loopback():
        ray.init(
            address="local",
            include_dashboard=resources.with_dashboard,
            log_to_driver=False,
            logging_level=logging.CRITICAL,
        )


@contextlib.contextmanager
def _on_loopback() -> Iterator[None]:
    """Let a Ray that starts in the block listen on 127.0.0.1 only.

    By default it does so on macOS and Windows alone. All its processes get the address of the node
    from the one that starts them, and listen on all interfaces unless it is 127.0.0.1.
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def _capacity(resources: Resources) -> Capacity:
    there = nodes().values()
    num_cpus = sum(node.num_cpus for node in there)
    num_gpus = sum(node.num_gpus for node in there)
    can_grow = can_be_added()
    if resources.use_gpu and num_gpus == 0 and not can_grow:
        raise UserError("--gpu was given, but Ray has no GPU here. Leave out --gpu to use CPUs.")
    cpus, use_gpu = resources.cpus_per_worker, resources.use_gpu
    use_gpu = num_gpus > 0 if use_gpu is None else use_gpu
    fit = (min([n.num_cpus // cpus, *([n.num_gpus] if use_gpu else [])]) for n in there)
    return Capacity(
        num_cpus=num_cpus,
        num_gpus=num_gpus,
        cpus_per_worker=cpus,
        use_gpu=use_gpu,
        max_workers=sum(fit),
        can_grow=can_grow,
    )


def run_interruptibly(
    work: Callable[[], _Result], *, meanwhile: Callable[[], None] = lambda: None
) -> _Result:
    """Run Ray's blocking `fit` in another thread, so that Ctrl-C interrupts this one at once.

    `meanwhile` is called in this thread five times a second, and once at the end. In the main
    thread, Ray would install its own handler of Ctrl-C, which is slow. On Ctrl-C the work is ended
    before the caller leaves `ray_session`: `ray.shutdown` while a thread waits for Ray is a
    segmentation fault within a second.
    """
    outcome: dict[str, Any] = {}
    ended = threading.Event()  # after Ctrl-C in `join`, Python 3.11 takes a thread for ended
    others = _controllers()

    def target() -> None:
        try:
            outcome["result"] = work()
        except BaseException as error:
            outcome["error"] = error
        finally:
            ended.set()

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    try:
        while not ended.wait(timeout=0.2):
            meanwhile()
        meanwhile()
    except BaseException:
        _end(thread, ended, others)
        raise
    if "error" in outcome:
        raise outcome["error"]
    result: _Result = outcome["result"]
    return result


def _controllers() -> set[str]:
    """The ids of the actors by which this process, or its trials, run Ray Train."""
    job = ray.get_runtime_context().get_job_id()
    alive = ray._private.state.actors(job_id=ray.JobID.from_hex(job), actor_state_name="ALIVE")
    return {id_ for id_, actor in alive.items() if actor["ActorClassName"] == "TrainController"}


def _end(thread: threading.Thread, ended: threading.Event, others: set[str]) -> None:
    """End the work of a thread, which may wait for a controller that is not one of the others."""
    core_worker = ray._private.worker.global_worker.core_worker
    until = time.monotonic() + _SECONDS_TO_END
    while not ended.is_set() and time.monotonic() < until:
        # Python raises this once the thread is back from Ray.
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(thread.ident or 0), ctypes.py_object(SystemExit)
        )
        for id_ in _controllers() - others:
            with contextlib.suppress(ActorHandleNotFoundError):  # that of a trial
                core_worker.kill_actor(ray.ActorID.from_hex(id_), True)
        ended.wait(timeout=0.5)


def our_error(error: BaseException) -> UserError | RunError | None:
    """The UserError or RunError inside an error of Ray, if there is one."""
    pending: list[BaseException | None] = [error]
    seen: list[BaseException] = []
    while pending:
        current = pending.pop(0)
        if current is None or current in seen:
            continue
        cause = getattr(current, "cause", None)  # a RayTaskError is an instance of its cause's type
        if isinstance(current, UserError | RunError) and cause is None:
            message = str(current).partition("\n")[0]  # Ray Data appends its own advice
            return UserError(message) if isinstance(current, UserError) else RunError(message)
        seen.append(current)
        failures = getattr(current, "worker_failures", {})
        pending += [cause, current.__cause__, *failures.values()]
    return None
