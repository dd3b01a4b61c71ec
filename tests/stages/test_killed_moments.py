"""Tests that kill a command at a chosen moment, then run the same command again.

The command is killed from within, with SIGKILL, where a function of its own would have been called.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import distlstm
from distlstm.model.directory import load_model
from tests.commands import TINY, run
from tests.conftest import labelled_rows
from tests.stages.test_faults import SECONDS

pytestmark = [pytest.mark.ray, pytest.mark.fault, pytest.mark.usefixtures("ray_cluster")]

RUN = """
import os, signal, sys
from distlstm import environment
environment.prepare()
from distlstm import cli

def kill(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)

def on_call(number, function):
    calls = []
    def call(*args, **kwargs):
        calls.append(args)
        return kill() if len(calls) == number else function(*args, **kwargs)
    return call

"""
"""The start of a script that runs the command of its arguments, to be killed where it says."""


def killed(where: str, *command: object) -> None:
    """Run a command that is killed by the code in `where`."""
    script = f"{RUN}{where}\nsys.argv = ['distlstm', *sys.argv[1:]]\ncli.main()"
    ended = subprocess.run(
        [sys.executable, "-c", script, *map(str, command)],
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr


def test_a_training_killed_before_its_checkpoints_are_removed_is_cleaned_up_by_the_next_run(
    capfd: pytest.CaptureFixture[str], corpus_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "m"
    command = ["train", corpus_file, "--output", output, *TINY, "--workers", 1, "--json"]
    first_is_of_events = "on_call(2, train.WorkingCopy.delete)"
    where = f"from distlstm.stages import train; train.WorkingCopy.delete = {first_is_of_events}"
    killed(where, *command)
    assert (output / "model.json").exists()
    assert (output / "checkpoints").is_dir()
    outcome = run(capfd, *command)
    assert outcome.code == 0, outcome.err
    assert "nothing to do" in outcome.err
    assert json.loads(outcome.out)["resumed"]
    assert not (output / "checkpoints").exists()
    assert not (output / "_lock").exists()


SPACE = ["--set", "search.space.model.hidden_dim={choice=[8, 12, 16]}", "--workers", 1]
MOMENTS = {
    "before the result": "from distlstm.stages import tune; tune._Run.finish = kill",
    "before best is replaced": "from distlstm.stages import tune; tune.replace_directory = kill",
    "after best is replaced": "from distlstm import atomic; atomic.shutil.rmtree = on_call("
    "2, atomic.shutil.rmtree)",
    "before best.toml": "from distlstm.stages import tune; tune.to_toml = kill",
    "before the result is recorded": "from distlstm.stages import tune; "
    "tune.TuneResult.to_json = kill",
}
"""Between the end of the last trial and the end of the command, in order."""


@pytest.fixture(scope="module")
def study(
    corpus_file: Path, ray_cluster: None, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[object]]:
    """A finished study of two trials, and its command but for the number of trials."""
    output = tmp_path_factory.mktemp("study") / "s"
    command = ["tune", corpus_file, "--output", output, *TINY, *SPACE]
    script = [sys.executable, "-m", "distlstm", *map(str, command), "--trials", "2", "--quiet"]
    subprocess.run(script, check=True, capture_output=True, timeout=SECONDS)
    return output, command


def check_whole_study(output: Path, num_trials: int) -> None:
    """Result, tables, storage and model agree."""
    trials = pq.read_table(output / "trials.parquet").to_pylist()
    assert len(trials) == num_trials
    recorded = json.loads((output / "study.json").read_text())
    assert recorded["finished"]
    assert len(recorded["result"]["trials"]) == num_trials
    best = next(trial for trial in trials if trial["is_chosen"])
    config = load_model(output / "best").config
    assert config.model.hidden_dim == best["model.hidden_dim"]
    assert f"hidden_dim = {config.model.hidden_dim}" in (output / "best.toml").read_text()
    assert not list(output.glob("best.*new")) + list(output.glob(".tmp-*"))


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_study_that_is_extended_and_killed_has_a_whole_best_and_is_finished_by_the_next_run(
    capfd: pytest.CaptureFixture[str],
    study: tuple[Path, list[object]],
    tmp_path: Path,
    moment: str,
) -> None:
    output, command = study
    aside = tmp_path / "aside"
    shutil.copytree(output, aside)
    try:
        extended = [*command, "--trials", 4, "--json"]
        killed(MOMENTS[moment], *extended)
        assert load_model(output / "best").metadata["metrics"]["num_rows"] > 0
        outcome = run(capfd, *extended)
        assert outcome.code == 0, outcome.err
        assert "nothing to do" not in outcome.err
        assert len(json.loads(outcome.out)["trials"]) == 4
        check_whole_study(output, 4)
        assert "nothing to do" in run(capfd, *extended).err
    finally:
        shutil.rmtree(output)
        shutil.copytree(aside, output)


def test_where_directories_cannot_swap_places_a_missing_best_is_made_again(
    capfd: pytest.CaptureFixture[str], study: tuple[Path, list[object]]
) -> None:
    output, command = study
    finished = [*command, "--trials", 2, "--json"]
    shutil.rmtree(output / "best")  # as between the two renames that replace a swap
    outcome = run(capfd, *finished)
    assert outcome.code == 0, outcome.err
    check_whole_study(output, 2)


@pytest.fixture(scope="module")
def tests_of_two_days(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    directory = tmp_path_factory.mktemp("tests")
    for day, num_rows in enumerate((60, 90)):
        pq.write_table(pa.table(labelled_rows(num_rows)), directory / f"{day}.parquet")
    return sorted(directory.iterdir())


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_an_evaluation_killed_while_it_replaces_another_is_one_or_the_other_or_unfinished(
    capfd: pytest.CaptureFixture[str],
    model: Path,
    tests_of_two_days: list[Path],
    tmp_path: Path,
    number: int,
) -> None:
    output = tmp_path / "e"
    old, new = (
        ["evaluate", path, "--model", model, "--output", output, "--workers", 1, "--json"]
        for path in tests_of_two_days
    )
    before = json.loads(run(capfd, *old).out)
    where = (
        "from distlstm.stages import evaluate as e; replace = on_call("
        f"{number}, os.replace); e.replace_file.__wrapped__.__globals__['Path'].replace = "
        "lambda self, target: replace(self, target)"
    )
    killed(where, *new, "--overwrite")
    metrics = json.loads((output / "metrics.json").read_text())
    if number < 4:
        assert metrics == before, "the old figures go only when the new ones are there"
    if number == 1:
        outcome = run(capfd, *new)
        assert outcome.code == 2
        assert "data was" in outcome.err
        assert json.loads(run(capfd, *old).out) == before
    outcome = run(capfd, *new, *(["--overwrite"] if number == 1 else []))
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["num_rows"] == 90
    assert json.loads((output / "metrics.json").read_text())["num_rows"] == 90
    assert "90 labelled rows" in (output / "report.html").read_text()
    outcome = run(capfd, *new)
    assert "nothing to do" in outcome.err
    assert json.loads(outcome.out)["num_rows"] == 90


def test_an_evaluation_is_locked_and_bound_to_its_model_and_data(
    capfd: pytest.CaptureFixture[str],
    model: Path,
    tests_of_two_days: list[Path],
    tmp_path: Path,
) -> None:
    output = tmp_path / "e"
    command = ["evaluate", tests_of_two_days[0], "--output", output, "--workers", 1]
    assert run(capfd, *command, "--model", model).code == 0
    other = tmp_path / "other"
    shutil.copytree(model, other)
    metadata = json.loads((other / "model.json").read_text())
    (other / "model.json").write_text(json.dumps({**metadata, "temperature": 9.0}))
    outcome = run(capfd, *command, "--model", other)
    assert outcome.code == 2
    assert "model was '" in outcome.err
    before = (output / "metrics.json").read_text()
    outcome = run(capfd, *command, "--model", other, "--label-column", "nothing", "--overwrite")
    assert outcome.code == 2
    assert (output / "metrics.json").read_text() == before, "nothing was gained, nothing is lost"
    assert run(capfd, *command, "--model", other, "--overwrite").code == 0
    recorded = json.loads((output / "evaluation.json").read_text())
    assert recorded["run"]["model"] == distlstm.load_model(other).fingerprint
    assert not (output / "_lock").exists()


def test_predict_on_standard_input_ends_with_130_on_ctrl_c(model: Path) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # may be ignored in the background
    process = subprocess.Popen(
        [sys.executable, "-m", "distlstm", "predict", "--model", str(model)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(b"goal team\n" * 256)
    process.stdin.flush()
    lines = [process.stdout.readline() for _ in range(256)]
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, err
    assert json.loads(lines[-1])["predicted_label"] == "sport"
    assert b"Interrupted" in err
    assert b"Resume with" not in err


def test_debug_after_two_dashes_is_a_text(
    capfd: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    outcome = run(capfd, "predict", "--model", model, "--", "--debug", "goal")
    assert outcome.code == 0
    assert [json.loads(line)["text"] for line in outcome.out.splitlines()] == ["--debug", "goal"]
    outcome = run(capfd, "predict", "--model", tmp_path / "none", "--", "--debug")
    assert outcome.code == 2
    assert "Traceback" not in outcome.err
    outcome = run(capfd, "predict", "--debug", "--model", tmp_path / "none", "goal")
    assert "Traceback" in outcome.err


def test_a_model_of_a_killed_training_is_the_one_of_an_unbroken_one(
    corpus_file: Path, tmp_path: Path
) -> None:
    command = ["train", corpus_file, *TINY, "--workers", 1, "--quiet"]
    moment = "from distlstm.stages.training import run; run.write_model = kill"
    killed(moment, *command, "--output", tmp_path / "broken")
    config = distlstm.load_config(None, TINY[1::2])
    broken, whole = (
        distlstm.train(corpus_file, output=tmp_path / name, config=config, workers=1)
        for name in ("broken", "whole")
    )
    assert broken.resumed
    assert not whole.resumed
    assert broken.metrics == whole.metrics
