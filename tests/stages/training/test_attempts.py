"""Tests of when a run of Ray Train whose workers died is tried again."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from ray.train import Result, TrainingFailedError

from distlstm.errors import UserError
from distlstm.stages.training import attempts
from distlstm.stages.training.attempts import fit_through_deaths
from distlstm.storage import LocalStorage


class Runs:
    """Attempts that fail with these errors and then end well, with or without checkpoints."""

    def __init__(self, *errors: BaseException | None, gets_on: bool) -> None:
        self.errors = list(errors)
        self.gets_on = gets_on
        self.count = 0
        self.deaths = 0
        self.ended = SimpleNamespace()

    def attempt(self) -> Result:
        self.count += 1
        if self.errors:
            raise TrainingFailedError("a worker died") from self.errors.pop(0)
        return self.ended

    def last_checkpoint(self, *_: object) -> SimpleNamespace | None:
        return SimpleNamespace(path=f"checkpoint_{self.count}") if self.gets_on else None

    def fit(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
        monkeypatch.setattr(attempts, "last_checkpoint", self.last_checkpoint)

        def count(_: BaseException) -> None:
            self.deaths += 1

        return fit_through_deaths(
            self.attempt, checkpoints=LocalStorage(tmp_path), run="r", on_death=count
        )


def test_a_training_that_gets_on_goes_on_through_any_number_of_deaths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = Runs(*[None] * 9, gets_on=True)
    assert runs.fit(tmp_path, monkeypatch) is runs.ended
    assert (runs.count, runs.deaths) == (10, 9)


@pytest.mark.parametrize(
    ("error", "gets_on"), [(None, False), (UserError("it is wrong"), True), (MemoryError(), True)]
)
def test_a_training_without_a_new_checkpoint_or_with_an_error_of_its_own_has_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException | None, gets_on: bool
) -> None:
    runs = Runs(error, gets_on=gets_on)
    monkeypatch.setattr(
        attempts, "is_out_of_memory", lambda e: isinstance(e.__cause__, MemoryError)
    )
    with pytest.raises(TrainingFailedError):
        runs.fit(tmp_path, monkeypatch)
    assert (runs.count, runs.deaths) == (1, 0)
