"""Tests of distlstm.stages.run.start_up."""

import time

import pytest

from distlstm.stages.run.start_up import Stopwatch


def test_parts_follow_one_another_and_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    watch = Stopwatch(began=98.0)
    watch.end("imports")
    now = 105.0
    watch.end_with("workers", {"model": 1.0, "first step": 0.5})
    assert watch.parts == {"imports": 2.0, "workers": 3.5, "model": 1.0, "first step": 0.5}


def test_what_others_measured_on_a_clock_of_their_own_leaves_no_negative_part() -> None:
    watch = Stopwatch()
    watch.end_with("workers", {"first step": 60.0})
    assert watch.parts == {"workers": 0.0, "first step": 60.0}
