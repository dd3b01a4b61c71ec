"""Tests of studies in a PostgreSQL server: shared, resumed, and without the password anywhere."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import optuna
import pytest

from distlstm.config import load_config
from distlstm.errors import RunError, UserError
from distlstm.stages.tuning.database import answering, in_database
from distlstm.stages.tuning.study import Study
from tests.postgresql import INITDB, PASSWORD, Server, postgresql
from tests.stages.tuning.test_study import SPACE, report, run

pytestmark = pytest.mark.skipif(INITDB is None, reason="no PostgreSQL server: initdb is not found")


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with postgresql() as server:
        yield server


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """A server whose password the environment has."""
    for name in [name for name in os.environ if name.startswith("PG")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return running


def study(directory: Path, server: Server, name: str, *settings: str) -> Study:
    config = load_config(None, [*SPACE, f"search.storage={server.url}", *settings])
    return Study(directory, config, name=name)


def test_two_studies_in_one_database_are_seen_together_and_by_other_programs(
    server: Server, tmp_path: Path
) -> None:
    for name, quality in (("first", 0.5), ("second", 0.7)):
        one = study(tmp_path, server, name, "search.num_trials=2")
        run(one, quality)
        run(one, quality + 0.1, epochs=3)
    assert list(tmp_path.iterdir()) == [], "nothing is on the disk"
    url = server.url.replace("postgresql:", "postgresql+psycopg:")
    names = optuna.get_all_study_names(url)
    assert {"first", "second"} <= set(names)
    seen = optuna.load_study(study_name="second", storage=url)
    assert [trial.value for trial in seen.trials] == [0.7, pytest.approx(0.8)]
    assert seen.user_attrs["output"] == str(tmp_path)


def test_a_study_goes_on_in_a_new_process_from_what_the_database_has(
    server: Server, tmp_path: Path
) -> None:
    settings = ("search.num_trials=3",)
    begun = study(tmp_path, server, "resumed", *settings)
    run(begun, 0.5)
    left = begun.propose()
    assert left is not None
    begun.report(left.number, report(1, 0.4))
    again = study(tmp_path, server, "resumed", *settings)
    assert again.num_missing == 2
    resumed = again.propose()
    assert resumed is not None
    assert (resumed.number, resumed.parameters) == (left.number, left.parameters)
    assert [row.state for row in again.rows()] == ["done", "running"]


def test_commands_that_find_an_empty_database_at_once_all_begin() -> None:
    with postgresql() as empty, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", PASSWORD)
        with ThreadPoolExecutor(4) as threads:
            storages = list(threads.map(in_database, [empty.url] * 4))
        assert all(storage.get_all_studies() == [] for storage in storages)


def test_a_database_that_was_restarted_is_connected_to_again_and_one_that_is_gone_is_named(
    tmp_path: Path,
) -> None:
    with postgresql() as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSWORD", PASSWORD)
        one = study(tmp_path, server, "restarted", "search.num_trials=3")
        run(one, 0.5)
        server.stop()
        server.start()
        run(one, 0.6)
        server.stop()
        with (
            pytest.raises(RunError, match=r"does not answer: .*Connection refused") as caught,
            answering(server.url),
        ):
            run(one, 0.7)
        assert "run the same command again" in str(caught.value)
        server.start()
        assert study(tmp_path, server, "restarted", "search.num_trials=3").num_missing == 1


@pytest.mark.parametrize("password", ["wrong-and-secret", None])
def test_a_wrong_or_missing_password_is_refused_and_not_shown(
    server: Server, monkeypatch: pytest.MonkeyPatch, password: str | None
) -> None:
    monkeypatch.delenv("PGPASSWORD")
    if password:
        monkeypatch.setenv("PGPASSWORD", password)
    monkeypatch.setenv("PGPASSFILE", "/nonexistent")
    with pytest.raises(UserError, match=r"cannot be opened: .*password") as caught:
        in_database(server.url)
    assert "PGPASSWORD or ~/.pgpass" in str(caught.value)
    assert f"127.0.0.1:{server.port}/postgres" in str(caught.value)
    assert not password or password not in str(caught.value)


def test_the_password_can_be_in_a_file_of_the_user(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("PGPASSWORD")
    (tmp_path / "pgpass").write_text(f"127.0.0.1:{server.port}:*:searcher:{PASSWORD}\n")
    (tmp_path / "pgpass").chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "pgpass"))
    in_database(server.url)


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("distlstm.stages.tuning.database.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'distlstm\[postgresql\]'"):
        in_database("postgresql://searcher@127.0.0.1/postgres")


def files_with(text: str, directory: Path) -> list[Path]:
    files = filter(Path.is_file, directory.rglob("*"))
    return [file for file in files if text.encode() in file.read_bytes()]


@pytest.mark.fault
@pytest.mark.ray
def test_a_killed_search_carries_on_from_the_database_and_nothing_has_the_password(
    server: Server, corpus_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "study"
    command = [
        *(sys.executable, "-m", "distlstm", "tune", str(corpus_file), "--output", str(output)),
        *("--set", f"search.storage={server.url}", "--set", "training.max_epochs=2"),
        *("--set", "model.hidden_dim=12", "--set", "model.embedding_dim=12"),
        *("--set", "search.space={'model.dropout'={uniform=[0.1, 0.5]}}"),
        *("--trials", "3", "--concurrency", "1", "--json"),
    ]
    url = server.url.replace("postgresql:", "postgresql+psycopg:")
    with (tmp_path / "killed.log").open("wb") as log:
        killed = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
    ended = _wait_for_a_trial(url, killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert not (output / "optuna.db").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (name,) = [name for name in optuna.get_all_study_names(url) if name.startswith("study-")]
    trials = optuna.load_study(study_name=name, storage=url).trials
    assert len(trials) == 3
    assert trials[ended.number].datetime_complete == ended.datetime_complete, "it ran only once"
    assert (output / "best/model.json").exists()
    assert '"resumed": true' in done.stdout
    assert PASSWORD not in done.stdout + done.stderr + server.log
    assert files_with(PASSWORD, tmp_path) == []


def _wait_for_a_trial(url: str, command: "subprocess.Popen[bytes]") -> optuna.trial.FrozenTrial:
    """The first trial of the command that has ended."""
    until = time.monotonic() + 240
    while time.monotonic() < until:
        assert command.poll() is None, "the command ended before it was killed"
        names = [name for name in optuna.get_all_study_names(url) if name.startswith("study-")]
        for name in names:
            for trial in optuna.load_study(study_name=name, storage=url).trials:
                if trial.state.is_finished():
                    return trial
        time.sleep(0.5)
    raise AssertionError("no trial has ended")
