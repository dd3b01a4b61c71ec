"""Tells the user that no worker starts, and what the cluster has."""

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import ray

from distlstm.stages.run.events import Note

_SECONDS_UNTIL_WAITING = 15.0
"""A worker that has its CPUs is ready before that, as a rule."""


@dataclass
class Waiting:
    """Reports once that there is no worker, and again after there has been one."""

    last_worker: float = field(default_factory=time.monotonic)
    """When there was a worker, or room for one."""

    def notes(self, asked: str, *, has_worker: bool) -> Iterator[Note]:
        """The report, if it is time for it; `asked` tells which workers are asked for."""
        now = time.monotonic()
        if has_worker:
            self.last_worker = now
        elif now - self.last_worker > _SECONDS_UNTIL_WAITING:
            self.last_worker = math.inf
            yield Note(
                f"Waiting for workers: {asked}, and the cluster has {_resources_there()}. "
                "The work goes on with the first worker.",
                is_warning=True,
            )


def _resources_there() -> str:
    """The resources of the cluster, for messages: `4 CPUs (1 free), 2 GPUs (0 free)`."""
    free, there = ray.available_resources(), ray.cluster_resources()
    found = [
        f"{there[name]:g} {name}s ({free.get(name, 0):g} free)"
        for name in ("CPU", "GPU")
        if name in there
    ]
    return ", ".join(found) or "no CPUs"
