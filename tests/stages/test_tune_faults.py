"""Tests that end the processes of a study: nothing that was found is lost."""

import json
import os
import random
import signal
import sqlite3
import subprocess
import time
from functools import partial
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import distlstm
from distlstm.model.directory import load_model
from tests.commands import TINY
from tests.stages.test_faults import SECONDS, pids_of
from tests.stages.test_interruption import start, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.fault]
NUM_TRIALS = 8
ARGUMENTS = [
    *(*TINY, "--set", "training.max_epochs=6", "--set", "search.reduction_factor=2"),
    *("--set", "search.space.model.hidden_dim={choice=[8, 12, 16]}"),
]


def command(corpus: Path, study: Path) -> list[object]:
    return ["tune", corpus, "--output", study, *ARGUMENTS, "--trials", NUM_TRIALS, "--json"]


def start_and_wait(corpus: Path, study: Path, *, num_more: int) -> subprocess.Popen[str]:
    """Start the command, and wait until its trials have reported so many epochs more."""
    wanted = num_reports(study) + num_more
    process = start(study.as_posix(), *command(corpus, study))
    wait_until(lambda: num_reports(study) >= wanted or process.poll() is not None, SECONDS)
    assert process.poll() is None, process.communicate()
    return process


def num_reports(study: Path) -> int:
    """How many epochs the study remembers."""
    try:
        with sqlite3.connect(f"file:{study}/optuna.db?mode=ro", uri=True) as storage:
            counts = storage.execute("select count(*) from trial_intermediate_values").fetchone()
            return int(counts[0])
    except sqlite3.OperationalError:  # it is being made
        return 0


def ended(study: Path) -> dict[int, str]:
    """The trials that have ended, with what they reported."""
    with sqlite3.connect(study / "optuna.db") as storage:
        found = storage.execute(
            "select number, value_json from trials join trial_user_attributes using (trial_id) "
            "where state in ('COMPLETE', 'PRUNED') and key = 'reports'"
        )
        return dict(found.fetchall())


def check_complete(study: Path, out: str) -> None:
    """All trials have ended well, each with every epoch once; the best is a model."""
    result = json.loads(out)
    trials = pq.read_table(study / "trials.parquet").to_pylist()
    assert sorted(int(trial["trial"]) for trial in trials) == list(range(NUM_TRIALS))
    assert {trial["state"] for trial in trials} <= {"done", "stopped"}
    epochs = pq.read_table(study / "epochs.parquet").to_pylist()
    for trial in trials:
        own = [epoch["epoch"] for epoch in epochs if epoch["trial"] == trial["trial"]]
        assert own == list(range(1, trial["epoch"] + 1))
    assert len(result["trials"]) == NUM_TRIALS
    assert load_model(study / "best").metadata["metrics"]["num_rows"] > 0


def test_a_killed_command_is_carried_on_with_from_where_each_trial_was(
    corpus_file: Path, tmp_path: Path
) -> None:
    study = tmp_path / "s"
    for _ in range(2):
        process = start_and_wait(corpus_file, study, num_more=3)
        wait_until(lambda: bool(ended(study)), SECONDS)
        time.sleep(random.random())
        process.kill()
        process.communicate()
        known = ended(study)
    assert known
    again = start(study.as_posix(), *command(corpus_file, study))
    out, err = again.communicate(timeout=SECONDS)
    assert again.returncode == 0, err
    assert json.loads(out)["resumed"]
    check_complete(study, out)
    assert known.items() <= ended(study).items(), "what had ended was not run again"
    assert len(list((study / "ray").rglob("*.safetensors"))) == 1
    assert not list(study.rglob("*.pkl")), "nor is anything left of the killed commands' Tune"


def test_a_trial_whose_process_is_killed_goes_on_from_its_checkpoint(
    corpus_file: Path, tmp_path: Path
) -> None:
    study = tmp_path / "s"
    process = start_and_wait(corpus_file, study, num_more=3)
    trials = partial(pids_of, study.as_posix(), "ray::ImplicitFunc")
    wait_until(lambda: bool(trials()), SECONDS)
    os.kill(random.choice(trials()), signal.SIGKILL)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    check_complete(study, out)


def test_ctrl_c_leaves_the_best_so_far_and_what_runs_is_carried_on_with(
    corpus_file: Path, tmp_path: Path
) -> None:
    study = tmp_path / "s"
    process = start_and_wait(corpus_file, study, num_more=4)
    wait_until(lambda: bool(ended(study)), SECONDS)  # before that, there is no best
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, err
    assert f"The best model so far is in {study / 'best'}." in err
    (label,) = distlstm.load_model(study / "best").predict(["match goal team"]).labels
    assert label
    states = {trial["state"] for trial in pq.read_table(study / "trials.parquet").to_pylist()}
    assert "running" not in states
    assert "failed" not in states
    assert "not finished" in (study / "report.html").read_text()
    again = start(study.as_posix(), *command(corpus_file, study))
    out, err = again.communicate(timeout=SECONDS)
    assert again.returncode == 0, err
    check_complete(study, out)


def test_two_commands_at_once_on_one_study_are_refused(corpus_file: Path, tmp_path: Path) -> None:
    study = tmp_path / "s"
    first = start_and_wait(corpus_file, study, num_more=1)
    first.send_signal(signal.SIGSTOP)  # so that it is not done meanwhile
    second = start(study.as_posix(), *command(corpus_file, study))
    _, err = second.communicate(timeout=SECONDS)
    first.send_signal(signal.SIGCONT)
    assert second.returncode == 2
    assert "Another command is at work on" in err
    out, err = first.communicate(timeout=SECONDS)
    assert first.returncode == 0, err
    check_complete(study, out)


@pytest.mark.soak
def test_two_trials_of_two_workers_each_run_side_by_side_and_free_what_they_held(
    corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"CPU": 4}')
    study, num_epochs = tmp_path / "s", 20  # a trial lasts longer than two differ in their starts
    settings = [f"training.max_epochs={num_epochs}", f"training.patience={num_epochs}"]
    settings += ["training.workers_per_trial=2", f"search.grace_epochs={num_epochs}"]
    arguments = [*TINY, *(word for setting in settings for word in ("--set", setting))]
    arguments += ["--trials", "3", "--json"]
    process = start(study.as_posix(), "tune", corpus_file, "--output", study, *arguments)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    trials = json.loads(out)["trials"]
    assert [trial["state"] for trial in trials] == ["done"] * 3
    epochs = pq.read_table(study / "epochs.parquet").to_pylist()
    spans = {
        number: [epoch for epoch in epochs if epoch["trial"] == number] for number in ("0", "1")
    }
    assert spans["0"][0]["started"] < spans["1"][-1]["ended"]
    assert spans["1"][0]["started"] < spans["0"][-1]["ended"]
    assert load_model(study / "best").labels.names == ("money", "sport", "天气")
