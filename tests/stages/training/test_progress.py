"""Tests of the progress that a training sends."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from distlstm.stages.run.start_up import Stopwatch
from distlstm.stages.training import progress
from distlstm.stages.training.progress import ProgressSender


class Sender(ProgressSender):
    """Keeps the notes instead of sending anything."""

    def __init__(self) -> None:
        training = cast(Any, SimpleNamespace(section="pretraining", num_epochs=8, history=[]))
        super().__init__(cast(Any, None), training, Stopwatch(), active=False)
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time that a sender sees, in a list of one."""
    now = [100.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: now[0]))
    return now


def test_an_estimate_is_made_once_after_some_seconds_of_an_epoch(clock: list[float]) -> None:
    sender = Sender()
    for done in range(1, 101):
        sender.step(done, 1_000)
        clock[0] += 0.5
    assert len(sender.notes) == 1
    assert "An epoch takes about 8 min, 8 epochs 67 min." in sender.notes[0]


def test_epochs_of_a_few_steps_and_seconds_have_no_estimate(clock: list[float]) -> None:
    sender = Sender()
    for _ in range(6):
        for done in (1, 2):
            sender.step(done, 2)
            clock[0] += 4
    assert sender.notes == []
