"""Tracks a training for other tools: TensorBoard event files, and optionally an MLflow run.

Both get the epochs up to the last checkpoint at the start, then each epoch when it ends. So a
resumed training has every epoch once.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Protocol

from tensorboardX import SummaryWriter

from distlstm.model.training import EpochResult
from distlstm.stages.run.events import EpochDone, Event, OnEvent
from distlstm.stages.run.output import Identity
from distlstm.stages.training.mlflow_run import mlflow_run
from distlstm.storage import WorkingCopy

EVENTS = "events"


class Tracker(Protocol):
    """Receives every epoch once, in order."""

    def epoch(self, result: EpochResult) -> None:
        """Record a finished epoch."""
        ...


@contextmanager
def tracked(
    output: WorkingCopy, *, settings: Identity, finished: Sequence[EpochResult], on_event: OnEvent
) -> Iterator[OnEvent]:
    """Yield an `on_event` that also tracks the finished epochs.

    Args:
        output: of the MODEL directory; the event files go to `events/` in it.
        settings: the settings of the training, by name.
        finished: the epochs up to the last checkpoint; later ones are trained and tracked again.
        on_event: gets every event first.
    """
    with ExitStack() as stack:
        trackers: list[Tracker] = [stack.enter_context(_event_files(output))]
        run = stack.enter_context(mlflow_run(output.path, settings=settings, on_event=on_event))
        trackers += [run] if run is not None else []
        last = 0

        def track(result: EpochResult) -> None:
            nonlocal last
            if result.epoch > last:  # an epoch runs again if its checkpoint was lost
                last = result.epoch
                for tracker in trackers:
                    tracker.epoch(result)

        def handle(event: Event) -> None:
            on_event(event)
            if isinstance(event, EpochDone):
                track(event.result)

        for result in finished:
            track(result)
        yield handle


def figures_of(result: EpochResult) -> dict[str, float]:
    """The tracked metrics of an epoch, by name."""
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
def _event_files(output: WorkingCopy) -> Iterator[_EventFile]:
    """Replace the event files by a new one, to which all epochs are written again."""
    output.delete(EVENTS)
    writer = SummaryWriter(str(output.path / EVENTS))
    try:
        yield _EventFile(writer)
    finally:
        writer.close()
