"""What the lines of a command tell about how far it is: those that it really prints."""

import pytest

from distlstm.console.terminal import TerminalProgress
from distlstm.ray_jobs.progress import JobProgress, progress_in
from distlstm.stages.run.events import (
    Event,
    Progress,
    RowsPredicted,
    TrialRow,
    TrialsChanged,
)


def printed(capfd: pytest.CaptureFixture[str], *events: Event) -> list[str]:
    """The lines of a command that runs without a terminal."""
    with TerminalProgress() as progress:
        for event in events:
            progress.last_line = -1e9  # lines of progress are seconds apart
            progress(event)
    return capfd.readouterr().err.splitlines()


def rows_predicted(**changed: object) -> RowsPredicted:
    values = {
        "rows": 12_000, "rows_per_second": 1234.4, "share": 0.4, "seconds_left": 20.0,
        "parts": 3, "parts_reused": 1, "parts_total": 8,
    }  # fmt: skip
    return RowsPredicted(**{**values, **changed})  # type: ignore[arg-type]


def test_a_prediction_shows_its_rows_and_its_speed(capfd: pytest.CaptureFixture[str]) -> None:
    lines = printed(capfd, rows_predicted())
    assert progress_in(lines) == JobProgress("12,000 rows (40%)", "1,234 rows/s")


def test_a_study_shows_its_trials_and_the_best_of_them(capfd: pytest.CaptureFixture[str]) -> None:
    done = TrialRow(trial="a", parameters={}, state="done", metrics={"accuracy": 0.8731})
    lines = printed(capfd, TrialsChanged((done,), 30, "accuracy"))
    assert progress_in(lines) == JobProgress("1 of 30 trials", "best accuracy 0.8731")


def test_a_training_shows_its_epoch_and_steps_and_the_best_epoch_so_far(
    capfd: pytest.CaptureFixture[str],
) -> None:
    lines = [
        "epoch  1 of up to 20: training loss 0.5270, validation loss 0.1125, accuracy 0.9100, "
        "macro-F1 1.0000, 4,770 tokens/s (best)",
        "epoch  2 of up to 20: training loss 0.5270, validation loss 0.1125, accuracy 0.9000, "
        "macro-F1 1.0000, 4,770 tokens/s",
    ]
    assert progress_in(lines) == JobProgress("epoch 2 of up to 20", "best accuracy 0.9100")
    lines += printed(capfd, Progress("epoch 3 of up to 20", 120, 4_227, "steps"))
    expected = JobProgress("epoch 3 of up to 20, 120 of 4,227 steps", "best accuracy 0.9100")
    assert progress_in(lines) == expected


def test_what_comes_before_the_epochs_is_shown_too(capfd: pytest.CaptureFixture[str]) -> None:
    lines = printed(capfd, Progress("encoding", 2, 5))
    assert progress_in(lines) == JobProgress("encoding: 2 of 5", "")


def test_what_comes_after_them_leaves_them_in_place_when_it_is_done(
    capfd: pytest.CaptureFixture[str],
) -> None:
    lines = ["epoch 3 of up to 3: training loss 0.1, accuracy 1.0000, 1 tokens/s (best)"]
    lines += printed(capfd, Progress("measuring the linear baseline", 1, 1))
    assert progress_in([*lines, "Model: /tmp/model"]).done == "epoch 3 of up to 3"


def test_other_lines_show_nothing() -> None:
    lines = ["", "Resuming /tmp/m.", "Error: no such file: 3 of 4", "│ this model │ 1.0 │"]
    assert progress_in(lines) == JobProgress("", "")
