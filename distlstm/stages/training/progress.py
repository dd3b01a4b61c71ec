"""The progress of a training: events that rank 0 sends from its node to the command.

They are sent as JSON, as the process of the queue would need torch to receive an `EpochDone`.
"""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from typing import Any

import ray
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distlstm.model.loop import EpochFigures, EpochLoop
from distlstm.model.pretraining import LanguageEpoch
from distlstm.model.training import EpochResult
from distlstm.stages.run.events import (
    CheckpointSaved,
    EpochDone,
    Event,
    FirstStep,
    LanguageEpochDone,
    Note,
    Progress,
)
from distlstm.stages.run.start_up import Stopwatch

_SECONDS_BETWEEN_STEPS = 0.3
_PATIENCE_SECONDS = 10.0
_SECONDS_BEFORE_ESTIMATE = 10.0


class ProgressSender:
    """Sends the progress of a training, in the worker of rank 0; in others it does nothing."""

    def __init__(
        self, queue: Queue, training: EpochLoop[Any, Any], watch: Stopwatch, *, active: bool
    ) -> None:
        self.queue = queue
        self.training = training
        self.watch = watch
        self.active = active
        self.last = 0.0
        is_pretraining = training.section == "pretraining"
        self.title = "language model, epoch" if is_pretraining else "epoch"
        self.estimates = is_pretraining
        self.first: tuple[int, float] | None = None

    def step(self, done: int, total: int) -> None:
        """Report a finished step, at most a few times a second."""
        now = time.monotonic()
        if self.last == 0.0:
            self.watch.end("first step")
            self._send({"first_step": self.watch.parts})
        if self.estimates:
            self._estimate(done, total, now)
        if now - self.last >= _SECONDS_BETWEEN_STEPS:
            self.last = now
            epoch = len(self.training.history) + 1
            title = f"{self.title} {epoch} of up to {self.training.num_epochs}"
            self._send({"title": title, "step": [done, total]})

    def _estimate(self, done: int, total: int, now: float) -> None:
        """Tell once, after some seconds, how long an epoch takes."""
        if self.first is None or done <= self.first[0]:  # an epoch begins
            self.first = done, now
        before, began = self.first
        if now - began >= _SECONDS_BEFORE_ESTIMATE:
            self.estimates = False
            seconds = (now - began) / (done - before) * total
            epochs = self.training.num_epochs
            self.note(
                f"An epoch takes about {_minutes(seconds)}, {epochs} epochs "
                f"{_minutes(epochs * seconds)}. To end earlier, give a --time-budget."
            )

    def epoch(self, result: EpochFigures) -> None:
        """Report a finished epoch, and wait until the command can have it."""
        sent = self._send({"of": self.training.num_epochs, "result": asdict(result)})
        if sent is not None:
            with suppress(ray.exceptions.RayError):  # the command has ended
                ray.get(sent, timeout=_PATIENCE_SECONDS)

    def checkpoint(self, seconds: float) -> None:
        """Report a checkpoint and how long saving it took."""
        self._send({"checkpoint": seconds})

    def note(self, text: str) -> None:
        """Report a message for the user."""
        self._send({"note": text})

    def _send(self, row: dict[str, Any]) -> ray.ObjectRef | None:
        return self.queue.actor.put_nowait.remote(json.dumps(row)) if self.active else None


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


@contextmanager
def progress_queue() -> Iterator[Queue]:
    """A queue for the events of a training, on the node of the command."""
    here = ray.get_runtime_context().get_node_id()
    place = NodeAffinitySchedulingStrategy(here, soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": place})
    try:
        yield queue
    finally:
        queue.shutdown(force=True)


def received(queue: Queue) -> list[Event]:
    """The events since the last call."""
    return [_event(json.loads(row)) for row in queue.get_nowait_batch(queue.qsize())]


def _event(row: dict[str, Any]) -> Event:
    if "result" in row:
        if "validation" in row["result"]:
            return EpochDone(EpochResult.from_json(row["result"]), row["of"])
        return LanguageEpochDone(LanguageEpoch.from_json(row["result"]), row["of"])
    if "first_step" in row:
        return FirstStep(row["first_step"])
    if "checkpoint" in row:
        return CheckpointSaved(row["checkpoint"])
    if "note" in row:
        return Note(row["note"])
    done, total = row["step"]
    return Progress(row["title"], done, total, "steps")
