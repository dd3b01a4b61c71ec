"""A training as other tools show it: TensorBoard's event files, and an MLflow run if asked for.

Both follow from the history of a training: at the start the epochs up to the last checkpoint, then
each epoch as it ends. So a run that was resumed shows every epoch once.
"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Protocol

from tensorboardX import SummaryWriter

from distlstm.model.loop import EpochResult
from distlstm.stages.run.events import EpochDone, Event, OnEvent
from distlstm.stages.run.output import Identity
from distlstm.stages.training.mlflow_run import mlflow_run

EVENTS = "events"


class Tracker(Protocol):
    """Something that is told of every epoch once, in order."""

    def epoch(self, result: EpochResult) -> None:
        """An epoch has ended."""
        ...


@contextmanager
def tracked(
    output: Path, *, settings: Identity, finished: Sequence[EpochResult], on_event: OnEvent
) -> Iterator[OnEvent]:
    """Yield an `on_event` that also tracks the epochs it hears of.

    Args:
        output: the MODEL directory; the event files go to `events/` in it.
        settings: names and values of what was asked for.
        finished: the epochs of the last checkpoint; what was tracked after it is redone.
        on_event: hears of everything first.
    """
    with ExitStack() as stack:
        trackers: list[Tracker] = [stack.enter_context(_event_files(output / EVENTS))]
        run = stack.enter_context(mlflow_run(output, settings=settings, on_event=on_event))
        trackers += [run] if run is not None else []
        last = 0

        def track(result: EpochResult) -> None:
            nonlocal last
            if result.epoch > last:  # an epoch is redone where its checkpoint was lost
                last = result.epoch
                for tracker in trackers:
                    tracker.epoch(result)

        def hear(event: Event) -> None:
            on_event(event)
            if isinstance(event, EpochDone):
                track(event.result)

        for result in finished:
            track(result)
        yield hear


def figures_of(result: EpochResult) -> dict[str, float]:
    """What is tracked of an epoch, by name."""
    validation = result.validation
    return {
        "training/loss": result.training_loss,
        "training/learning_rate": result.learning_rate,
        "training/tokens_per_second": result.num_tokens / max(result.seconds, 1e-9),
        "validation/loss": validation.log_loss,
        "validation/accuracy": validation.accuracy,
        "validation/macro_f1": validation.macro_f1,
        "validation/mcc": validation.mcc,
        "validation/ece": validation.ece,
    }


class _EventFile:
    def __init__(self, writer: SummaryWriter) -> None:
        self.writer = writer

    def epoch(self, result: EpochResult) -> None:
        for name, value in figures_of(result).items():
            self.writer.add_scalar(name, value, result.epoch)
        self.writer.flush()


@contextmanager
def _event_files(directory: Path) -> Iterator[_EventFile]:
    """A new event file in place of those there are: the epochs in them are written again."""
    shutil.rmtree(directory, ignore_errors=True)
    writer = SummaryWriter(str(directory))
    try:
        yield _EventFile(writer)
    finally:
        writer.close()
