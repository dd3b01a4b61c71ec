"""Tests of `train` under faults: workers and commands killed with SIGKILL, twice.

In the end there is the model of an unbroken run with the same seed, and every epoch once.
"""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from distlstm.stages.run.output import LOCK_FILE
from distlstm.stages.training.checkpoints import finished_epochs
from distlstm.storage import LocalStorage
from tests.stages.test_faults import AGENTS, SECONDS, pids_of
from tests.stages.test_interruption import (
    ARGUMENTS,
    epochs_done,
    epochs_shown,
    processes_of,
    start,
    wait_until,
)
from tests.stages.training.test_tracking import tracked_epochs

pytestmark = [pytest.mark.ray, pytest.mark.fault]
NUM_EPOCHS = 12
LIMITED_WORKERS = """
import resource

if b"default_worker.py" in open("/proc/self/cmdline", "rb").read():
    resource.setrlimit(resource.RLIMIT_DATA, (1 << 30, 1 << 30))
"""
"""A `sitecustomize` that Python runs as it starts: Ray's workers get a GiB of memory each."""

SLOW_FIRST_AGENT = """
import pathlib
import time

if b"dashboard/agent.py" in open("/proc/self/cmdline", "rb").read():
    mark = pathlib.Path(__file__).with_name("slept")
    if not mark.exists():
        mark.touch()
        time.sleep(60)
"""
"""A `sitecustomize`: the first agent of Ray needs longer than the 15 s that Ray gives it."""


class Job:
    """A training command, and the mark that its processes carry in their environment."""

    def __init__(self, corpus_file: Path, output: Path) -> None:
        self.output = output
        self.command = ["train", corpus_file, "--output", output, *ARGUMENTS, "--workers", 2]

    def start(self) -> subprocess.Popen[str]:
        return start(self.output.as_posix(), *self.command, "--json")

    def wait_for_epochs(self, process: subprocess.Popen[str], count: int) -> None:
        """Until so many epochs were reported; the command must be running still."""
        wait_until(lambda: epochs_done(self.output) >= count or process.poll() is not None, SECONDS)
        assert process.poll() is None, process.communicate()

    def workers(self) -> list[int]:
        return pids_of(self.output.as_posix(), "ray::RayTrainWorker")


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The result of a command that must end well."""
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    return dict(json.loads(out))


@pytest.fixture(scope="module")
def unbroken(corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of a run to which nothing happens."""
    return ended(Job(corpus_file, tmp_path_factory.mktemp("unbroken") / "m").start())


@pytest.fixture
def job(corpus_file: Path, tmp_path: Path) -> Iterator[Job]:
    """A training; what a failed test left of its processes is ended."""
    job = Job(corpus_file, tmp_path / "m")
    yield job
    for pid in pids_of(job.output.as_posix()):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def check_same(job: Job, result: dict[str, Any], unbroken: dict[str, Any]) -> None:
    """The metrics are those of the unbroken run, and every epoch is there once."""
    history = pq.read_table(job.output / "history.parquet").to_pylist()
    assert [row["epoch"] for row in history] == list(range(1, NUM_EPOCHS + 1))
    assert tracked_epochs(job.output / "events") == list(range(1, NUM_EPOCHS + 1))
    expected = pq.read_table(Path(unbroken["model"]) / "history.parquet").to_pylist()
    losses = [[row["training_loss"] for row in rows] for rows in (history, expected)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    assert result["metrics"] == pytest.approx(unbroken["metrics"], abs=1e-3)


def test_killed_workers_are_replaced_within_the_run(job: Job, unbroken: dict[str, Any]) -> None:
    process = job.start()
    for epochs, which in ((3, 0), (6, -1)):
        job.wait_for_epochs(process, epochs)
        os.kill(job.workers()[which], signal.SIGKILL)
    result = ended(process)
    check_same(job, result, unbroken)


def test_a_command_that_is_killed_twice_carries_on(job: Job, unbroken: dict[str, Any]) -> None:
    for epochs in (3, 7):
        process = job.start()
        job.wait_for_epochs(process, epochs)
        process.kill()
        process.communicate()
        wait_until(lambda: processes_of(job.output.as_posix()) <= AGENTS, SECONDS)
    num_finished = len(finished_epochs(LocalStorage(job.output / "checkpoints")))
    assert num_finished >= 3  # at each kill, an epoch or two may not have been registered yet
    process = job.start()
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert result["resumed"]
    assert epochs_shown(err)[0] == num_finished + 1
    check_same(job, result, unbroken)


def test_of_two_commands_on_one_output_the_second_is_refused_until_the_first_is_gone(
    job: Job,
) -> None:
    first = job.start()
    job.wait_for_epochs(first, 2)
    first.send_signal(signal.SIGSTOP)  # so that it is not done meanwhile
    for more in ([], ["--overwrite"]):
        second = start(job.output.as_posix(), *job.command, *more)
        _, err = second.communicate(timeout=SECONDS)
        assert second.returncode == 2
        assert f"Another command is at work on {job.output}" in err
    first.kill()
    first.communicate()
    wait_until(lambda: processes_of(job.output.as_posix()) <= AGENTS, SECONDS)
    assert epochs_done(job.output) >= 2
    result = ended(job.start())
    assert result["resumed"]
    assert not (job.output / LOCK_FILE).exists()


def test_workers_without_memory_enough_end_with_what_to_lower(
    corpus_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(LIMITED_WORKERS)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    size = ["--set", "model.hidden_dim=8192", "--workers", 1]  # a weight of it has a GiB
    output = tmp_path / "m"
    process = start(output.as_posix(), "train", corpus_file, "--output", output, *size)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 1
    assert "A training worker ran out of memory." in err
    assert "model.hidden_dim" in err


@pytest.mark.fault
def test_a_ray_that_is_too_slow_to_start_is_started_once_more(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SLOW_FIRST_AGENT)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert ended(job.start())["epochs"] == NUM_EPOCHS
    assert (tmp_path / "slept").exists()
