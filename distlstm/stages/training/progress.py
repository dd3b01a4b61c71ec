"""The progress of a training: events that rank 0 sends from its node to the command."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import ray
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from distlstm.model.loop import EpochResult, Training
from distlstm.stages.run.events import EpochDone, Event, FirstStep, Note, Progress
from distlstm.stages.run.start_up import Stopwatch

_SECONDS_BETWEEN_STEPS = 0.3
_PATIENCE_SECONDS = 10.0


class ProgressSender:
    """Sends the progress of a training, in the worker of rank 0; in others it does nothing."""

    def __init__(self, queue: Queue, training: Training, watch: Stopwatch, *, active: bool) -> None:
        self.queue = queue
        self.training = training
        self.watch = watch
        self.active = active
        self.last = 0.0

    def step(self, done: int, total: int) -> None:
        """Report a finished step, at most a few times a second."""
        now = time.monotonic()
        if self.last == 0.0:
            self.watch.end("first step")
            self._send(FirstStep(self.watch.parts))
        if now - self.last >= _SECONDS_BETWEEN_STEPS:
            self.last = now
            title = f"epoch {len(self.training.history) + 1} of up to {self.training.num_epochs}"
            self._send(Progress(title, done, total, "steps"))

    def epoch(self, result: EpochResult) -> None:
        """Report a finished epoch, and wait until the command can have it."""
        sent = self._send(EpochDone(result, self.training.num_epochs))
        if sent is not None:
            with suppress(ray.exceptions.RayError):  # the command has ended
                ray.get(sent, timeout=_PATIENCE_SECONDS)

    def note(self, text: str) -> None:
        """Report a message for the user."""
        self._send(Note(text))

    def _send(self, event: Event) -> ray.ObjectRef | None:
        return self.queue.actor.put_nowait.remote(event) if self.active else None


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
    events: list[Event] = queue.get_nowait_batch(queue.qsize())
    return events
