"""The connection to Ray: an embedded one of our own, or a cluster's.

An embedded Ray listens on loopback only, with token authentication, and ends with the command.
What Ray itself prints goes to its session logs; errors reach the user as ours.
"""

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import ray

from distlstm.errors import RunError, UserError
from distlstm.stages.run.host import silenced, unchanged

_Result = TypeVar("_Result")


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a command may use. From the command line only, never from a config file."""

    num_workers: int | None = None
    """None: the stage decides by what the cluster has."""
    use_gpu: bool | None = None
    """None: use GPUs if the cluster has them."""
    cpus_per_worker: int = 1
    address: str | None = None
    """Of a running cluster; None: RAY_ADDRESS, else an embedded Ray."""
    show_ray_output: bool = False
    """Let Ray's own lines through to the terminal."""
    with_dashboard: bool = False
    """Start an embedded Ray with it. Ray Train inside Ray Tune needs it: a trial that is stopped
    would hold its workers' CPUs for ever."""


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """What the cluster has, and what each worker of this command takes of it."""

    num_cpus: int
    num_gpus: int
    cpus_per_worker: int
    use_gpu: bool

    @property
    def max_workers(self) -> int:
        """Workers that fit at once."""
        by_cpu = self.num_cpus // self.cpus_per_worker
        return min(by_cpu, self.num_gpus) if self.use_gpu else by_cpu

    def workers(self, wanted: int | None, *, default: int) -> int:
        """The number of workers to start.

        Raises:
            UserError: more are wanted than fit, with the arithmetic.
        """
        count = min(default, self.max_workers) if wanted is None else wanted
        if count > self.max_workers or count < 1:
            gpus = f" and {self.num_gpus} GPUs" if self.use_gpu else ""
            raise UserError(
                f"{max(1, count)} workers of {self.cpus_per_worker} CPUs"
                f"{' and a GPU' if self.use_gpu else ''} each do not fit: Ray has "
                f"{self.num_cpus} CPUs{gpus}. Lower --workers or --cpus-per-worker."
            )
        return count


@contextlib.contextmanager
def ray_session(resources: Resources) -> Iterator[Capacity]:
    """Connect to Ray for a block, unless this process is connected already; quietly.

    At the end of the block, descriptors, loggers and signal handlers are as they were.

    Raises:
        UserError: there is no cluster at the address, or no GPU where one was asked for.
    """
    with unchanged(), contextlib.nullcontext() if resources.show_ray_output else silenced():
        if ray.is_initialized():
            yield _capacity(resources)
            return
        try:
            _connect(resources)
            yield _capacity(resources)
        finally:
            ray.shutdown()


@contextlib.contextmanager
def shared_ray(resources: Resources) -> Iterator[None]:
    """Keep one Ray for the several stages of a block, each of which uses `ray_session`."""
    with unchanged():
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
    ray.init(
        address="local",
        include_dashboard=resources.with_dashboard,
        log_to_driver=False,
        logging_level=logging.CRITICAL,
    )


def _capacity(resources: Resources) -> Capacity:
    found = ray.cluster_resources()
    num_gpus = int(found.get("GPU", 0))
    if resources.use_gpu and num_gpus == 0:
        raise UserError("--gpu was given, but Ray has no GPU here. Leave it out to use CPUs.")
    return Capacity(
        num_cpus=int(found.get("CPU", 0)),
        num_gpus=num_gpus,
        cpus_per_worker=resources.cpus_per_worker,
        use_gpu=num_gpus > 0 if resources.use_gpu is None else resources.use_gpu,
    )


def run_interruptibly(
    work: Callable[[], _Result], *, meanwhile: Callable[[], None] = lambda: None
) -> _Result:
    """Run Ray's blocking `fit` in a thread, so that Ctrl-C reaches this one at once.

    Five times a second, and once at the end, `meanwhile` is called here. In the main thread Ray
    installs a handler of its own, which takes its time. On Ctrl-C the caller leaves
    `ray_session`, which ends the work's processes.
    """
    outcome: dict[str, Any] = {}

    def target() -> None:
        try:
            outcome["result"] = work()
        except BaseException as error:
            outcome["error"] = error

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(timeout=0.2)
        meanwhile()
    if "error" in outcome:
        raise outcome["error"]
    result: _Result = outcome["result"]
    return result


def our_error(error: BaseException) -> UserError | RunError | None:
    """The UserError or RunError that lies under what Ray wrapped around it, if there is one."""
    pending: list[BaseException | None] = [error]
    seen: list[BaseException] = []
    while pending:
        current = pending.pop(0)
        if current is None or current in seen:
            continue
        cause = getattr(current, "cause", None)  # of a RayTaskError, which poses as its cause
        if isinstance(current, UserError | RunError) and cause is None:
            message = str(current).partition("\n")[0]  # Ray Data appends advice of its own
            return UserError(message) if isinstance(current, UserError) else RunError(message)
        seen.append(current)
        failures = getattr(current, "worker_failures", {})
        pending += [cause, current.__cause__, *failures.values()]
    return None
