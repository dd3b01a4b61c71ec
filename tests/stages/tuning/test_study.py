"""Tests of a study's memory, without Ray: proposals, early stops, failures, and a new process."""

import sqlite3
from pathlib import Path

import pytest

from distlstm.config import ExperimentConfig, load_config
from distlstm.errors import UserError
from distlstm.stages.tuning.study import STORAGE_FILE, Study, TrialReport
from distlstm.storage import LocalStorage

SPACE = [
    "search.space.model.hidden_dim={choice=[8, 16, 32]}",
    "search.space.model.dropout={uniform=[0.1, 0.6]}",
    'search.space.model.pooling={choice=[["last"], ["max", "mean"]]}',
]


def config(*settings: str) -> ExperimentConfig:
    return load_config(None, [*SPACE, *settings])


def report(epoch: int, quality: float, *, last: int = 9, worker: str = "host 1") -> TrialReport:
    return TrialReport(
        epoch=epoch,
        num_epochs=last,
        accuracy=quality,
        macro_f1=quality,
        loss=1 - quality,
        training_loss=1.0,
        is_best=True,
        finished=epoch == last,
        started=float(epoch),
        ended=epoch + 0.5,
        seconds=0.4,
        worker=worker,
        rows_per_second=100.0,
        num_parameters=10,
    )


def run(study: Study, quality: float, *, epochs: int = 1) -> int:
    """Propose a trial and run it to its end; its number."""
    proposal = study.propose()
    assert proposal is not None
    for epoch in range(1, epochs + 1):
        study.report(proposal.number, report(epoch, quality, last=epochs))
    study.end(proposal.number)
    return proposal.number


def test_values_come_back_as_the_config_has_them(tmp_path: Path) -> None:
    study = Study(tmp_path, config())
    for _ in range(6):
        proposal = study.propose()
        assert proposal is not None
        changed = config().with_values(proposal.parameters)
        assert changed.model.hidden_dim in (8, 16, 32)
        assert changed.model.pooling in (("last",), ("max", "mean"))
        assert 0.1 <= changed.model.dropout <= 0.6
        assert proposal.checkpoint is None


def test_a_study_has_so_many_trials_and_a_larger_number_adds_some(tmp_path: Path) -> None:
    study = Study(tmp_path, config("search.num_trials=2"))
    numbers = [run(study, 0.5), run(study, 0.6)]
    assert numbers == [0, 1]
    assert study.propose() is None
    assert study.num_missing == 0
    more = Study(tmp_path, config("search.num_trials=3"))
    assert more.num_missing == 1
    assert run(more, 0.7) == 2
    assert [row.trial for row in more.rows()] == ["2", "1", "0"]


def test_unfinished_trials_are_handed_out_again_with_their_checkpoints(tmp_path: Path) -> None:
    study = Study(tmp_path, config("search.num_trials=3"))
    run(study, 0.5)
    left = study.propose()
    assert left is not None
    study.report(left.number, report(1, 0.4))
    (tmp_path / "ray" / "checkpoint").mkdir(parents=True)
    (tmp_path / "ray" / "checkpoint" / "weights").touch()
    study.keep_checkpoint(left.number, str(tmp_path / "ray" / "checkpoint"))
    again = Study(tmp_path, config("search.num_trials=3"))
    assert again.num_missing == 2
    resumed = again.propose()
    assert resumed is not None
    assert (resumed.number, resumed.parameters) == (left.number, left.parameters)
    assert resumed.checkpoint == LocalStorage(tmp_path / "ray" / "checkpoint")
    again.report(resumed.number, report(1, 0.4))  # the last epoch is run once more
    again.report(resumed.number, report(2, 0.45, last=2))
    again.end(resumed.number)
    assert [epoch["epoch"] for epoch in again.epochs() if epoch["trial"] == "1"] == [1, 2]
    assert run(again, 0.6) == 2


def test_a_trial_whose_last_report_was_kept_has_ended_whatever_died_then(tmp_path: Path) -> None:
    study = Study(tmp_path, config("search.num_trials=2"))
    proposal = study.propose()
    assert proposal is not None
    study.report(proposal.number, report(1, 0.5, last=1))
    again = Study(tmp_path, config("search.num_trials=2"))
    assert [row.state for row in again.rows()] == ["done"]
    assert again.num_missing == 1
    following = again.propose()
    assert following is not None
    assert following.number == 1


def test_a_checkpoint_that_is_gone_is_not_handed_out(tmp_path: Path) -> None:
    study = Study(tmp_path, config())
    proposal = study.propose()
    assert proposal is not None
    study.keep_checkpoint(proposal.number, str(tmp_path / "gone"))
    again = Study(tmp_path, config()).propose()
    assert again is not None
    assert again.checkpoint is None


def test_random_proposals_go_on_in_a_new_process_and_do_not_start_over(tmp_path: Path) -> None:
    seen = []
    for _ in range(3):
        study = Study(tmp_path, config("search.algorithm=random", "search.num_trials=9"))
        for _ in range(3):
            proposal = study.propose()
            assert proposal is not None
            seen.append(proposal.parameters["model.dropout"])
            study.report(proposal.number, report(1, 0.5, last=1))
            study.end(proposal.number)
    assert len(set(seen)) == 9


def test_trials_that_fall_behind_are_stopped_by_what_an_earlier_process_saw(tmp_path: Path) -> None:
    settings = config("search.reduction_factor=3", "search.grace_epochs=1")
    study = Study(tmp_path, settings)
    for quality in (0.7, 0.8, 0.9):
        run(study, quality, epochs=9)
    again = Study(tmp_path, settings)
    bad, good = again.propose(), again.propose()
    assert bad is not None
    assert good is not None
    assert again.report(bad.number, report(1, 0.2))
    assert not again.report(good.number, report(1, 0.95))
    again.end(bad.number)
    states = {row.trial: row.state for row in again.rows()}
    assert states == {"0": "done", "1": "done", "2": "done", "3": "stopped", "4": "running"}


def test_a_smaller_loss_is_better(tmp_path: Path) -> None:
    study = Study(tmp_path, config("search.metric=loss"))
    run(study, 0.2)
    run(study, 0.9)
    assert [row.metrics["loss"] for row in study.rows()] == pytest.approx([0.1, 0.8])


def test_of_equal_trials_the_one_of_the_lower_loss_is_better(tmp_path: Path) -> None:
    study = Study(tmp_path, config())
    for loss in (0.3, 0.1, 0.2):
        proposal = study.propose()
        assert proposal is not None
        one = TrialReport(**{**vars(report(1, 0.5, last=1)), "loss": loss})
        study.report(proposal.number, one)
        study.end(proposal.number)
    assert [row.metrics["loss"] for row in study.rows()] == [0.1, 0.2, 0.3]


def test_the_figures_are_those_of_the_best_epoch(tmp_path: Path) -> None:
    study = Study(tmp_path, config())
    proposal = study.propose()
    assert proposal is not None
    study.report(proposal.number, report(1, 0.6, last=2))
    worse = TrialReport(**{**vars(report(2, 0.4, last=2)), "is_best": False})
    study.report(proposal.number, worse)
    study.end(proposal.number)
    (row,) = study.rows()
    assert (row.epoch, row.metrics["macro_f1"], row.seconds) == (2, 0.6, 1.0)


def test_failures_are_kept_and_only_a_common_one_is_hopeless(tmp_path: Path) -> None:
    study = Study(tmp_path, config("search.num_trials=20"))
    for i in range(2):
        proposal = study.propose()
        assert proposal is not None
        study.fail(proposal.number, f"diverged at a rate of 0.{i}")
    run(study, 0.5)
    assert study.hopeless is None
    proposal = study.propose()
    assert proposal is not None
    study.fail(proposal.number, "diverged at a rate of 7")
    assert study.hopeless == "diverged at a rate of 0.0"
    assert [row.state for row in study.rows()] == ["done", "failed", "failed", "failed"]
    assert Study(tmp_path, config("search.num_trials=20")).hopeless is None


def test_a_trial_goes_on_however_often_its_node_dies_and_fails_by_its_own_deaths(
    tmp_path: Path,
) -> None:
    study = Study(tmp_path, config("search.num_trials=1"))
    for blamed in (False, False, False, False, True, True, True):
        proposal = study.propose()
        assert proposal is not None
        assert proposal.number == 0
        assert study.propose() is None
        assert study.is_running
        study.died(0, "its process died", blamed=blamed)
    assert proposal.attempt == 6
    assert study.propose() is None
    assert not study.is_running
    assert [(row.state, row.error) for row in study.rows()] == [("failed", "its process died")]


def test_a_trial_whose_node_dies_after_its_last_epoch_is_done(tmp_path: Path) -> None:
    study = Study(tmp_path, config("search.num_trials=1"))
    assert study.propose() is not None
    study.report(0, report(9, 0.5))
    study.died(0, "its process died", blamed=False)
    assert study.propose() is None
    assert [row.state for row in study.rows()] == ["done"]


def test_a_closed_study_takes_nothing_in(tmp_path: Path) -> None:
    study = Study(tmp_path, config())
    proposal = study.propose()
    assert proposal is not None
    study.close()
    study.fail(proposal.number, "its process died")
    assert study.report(proposal.number, report(1, 0.5))
    assert [(row.state, row.epoch) for row in study.rows()] == [("unfinished", 0)]


def test_suggested_points_come_first_and_once(tmp_path: Path) -> None:
    points = [{"model.hidden_dim": 32, "model.dropout": 0.25}, {"model.pooling": ("max", "mean")}]
    for _ in range(2):
        Study(tmp_path, config()).suggest_first(points)
    study = Study(tmp_path, config())
    first, second, third = study.propose(), study.propose(), study.propose()
    assert first is not None
    assert second is not None
    assert third is not None
    assert first.parameters["model.dropout"] == 0.25
    assert tuple(second.parameters["model.pooling"]) == ("max", "mean")
    assert third.parameters["model.dropout"] != 0.25


def test_a_grid_is_run_through_in_order(tmp_path: Path) -> None:
    grid = load_config(
        None,
        [
            "search.algorithm=grid",
            "search.num_trials=50",
            "search.space={}".replace("{}", '{"model.num_layers" = {choice = [1, 2]}}'),
            "search.space.model.hidden_dim={quniform=[8, 24, 8]}",
        ],
    )
    study = Study(tmp_path, grid)
    study.suggest_first(study.space.grid())
    assert study.num_trials == 6
    seen = []
    for _ in range(6):
        proposal = study.propose()
        assert proposal is not None
        seen.append(
            (proposal.parameters["model.num_layers"], proposal.parameters["model.hidden_dim"])
        )
    assert seen == [(layers, dim) for layers in (1, 2) for dim in (8, 16, 24)]
    assert study.propose() is None


def test_there_is_no_grid_of_a_range(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"search\.space\.model\.dropout takes any value"):
        Study(tmp_path, config("search.algorithm=grid")).space.grid()


def test_what_mattered_is_told_after_enough_trials(tmp_path: Path) -> None:
    study = Study(tmp_path, config("search.num_trials=30", "search.algorithm=random"))
    assert study.importance() == {}
    for _ in range(30):
        proposal = study.propose()
        assert proposal is not None
        quality = 0.5 + proposal.parameters["model.dropout"] / 2
        study.report(proposal.number, report(1, quality, last=1))
        study.end(proposal.number)
    importance = study.importance()
    assert max(importance, key=lambda name: importance[name]) == "model.dropout"


@pytest.mark.parametrize("name", ["with space", "a?b=c", "100%", "日本"])
def test_any_directory_will_do(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    run(Study(tmp_path / name, config()), 0.5)
    with sqlite3.connect(tmp_path / name / STORAGE_FILE) as storage:
        assert storage.execute("select count(*) from trials").fetchone() == (1,)
