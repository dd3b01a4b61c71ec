"""Tests of Ray Train's list of checkpoints after a kill."""

from pathlib import Path

import pytest

from distlstm.stages.training.snapshot import Snapshot, mend_snapshot
from distlstm.storage import LocalStorage

LIST = "checkpoint_manager_snapshot.json"


@pytest.fixture
def run(tmp_path: Path) -> LocalStorage:
    """The directory of a run with one checkpoint, whose list was copied."""
    (tmp_path / LIST).write_text('{"checkpoints": [1]}')
    storage = LocalStorage(tmp_path)
    Snapshot(storage).after_report(None, None)
    return storage


@pytest.mark.parametrize("content", ["", '{"checkpoints": [1, 2', "\0\0\0"])
def test_a_list_that_was_cut_short_is_replaced_by_the_last_whole_one(
    run: LocalStorage, content: str
) -> None:
    (run.path / LIST).write_text(content)
    mend_snapshot(run)
    assert run.read_text(LIST) == '{"checkpoints": [1]}'


def test_a_whole_list_stays_and_the_copy_follows_it(run: LocalStorage) -> None:
    (run.path / LIST).write_text('{"checkpoints": [1, 2]}')
    mend_snapshot(run)
    assert run.read_text(LIST) == '{"checkpoints": [1, 2]}'
    Snapshot(run).after_report(None, None)
    (run.path / LIST).write_text("")
    mend_snapshot(run)
    assert run.read_text(LIST) == '{"checkpoints": [1, 2]}'


def test_without_a_copy_the_training_starts_anew(tmp_path: Path) -> None:
    (tmp_path / LIST).write_text('{"check')
    mend_snapshot(LocalStorage(tmp_path))
    assert not (tmp_path / LIST).exists()
    mend_snapshot(LocalStorage(tmp_path / "nothing"))
