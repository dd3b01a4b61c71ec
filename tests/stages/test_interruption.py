"""Tests that end processes: Ctrl-C and SIGKILL, and the same command again."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import distlstm
from distlstm.model.directory import load_model
from distlstm.stages.training.checkpoints import finished_epochs
from distlstm.storage import LocalStorage
from tests.commands import TINY
from tests.stages.training.test_tracking import tracked_epochs

pytestmark = [pytest.mark.ray, pytest.mark.fault]
ARGUMENTS = [*TINY, "--set", "training.max_epochs=12", "--set", "training.patience=12"]


def start(marker: str, *command: object) -> subprocess.Popen[str]:
    # Where the tests run in the background, SIGINT may be ignored, which a child would inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return subprocess.Popen(
        [sys.executable, "-m", "distlstm", *map(str, command)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "DISTLSTM_TEST": marker},
        start_new_session=True,
    )


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)


def processes_of(marker: str) -> set[str]:
    """Names of the live processes with this marker in their environment."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"DISTLSTM_TEST={marker}".encode() in (process / "environ").read_bytes():
                found.add((process / "cmdline").read_bytes().split(b"\0")[0].decode().strip())
        except OSError:
            continue
    return found - {""}


def epochs_done(output: Path) -> int:
    """The last epoch that a training has reported."""
    return max(tracked_epochs(output / "events"), default=0)


def epochs_shown(err: str) -> list[int]:
    """The epochs that a command has printed."""
    return [int(number) for number in re.findall(r"epoch +(\d+) of up to 12: training", err)]


def check_usable(best: Path, err: str) -> None:
    """The model of an interrupted training is complete, named, and predicts."""
    assert f"is in {best}." in err
    (label,) = distlstm.load_model(best).predict(["match goal team"]).labels
    assert label in load_model(best).labels.names
    assert not (best.parent / "model.json").exists()


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_an_ended_training_leaves_no_process_and_the_same_command_carries_on(
    corpus_file: Path, tmp_path: Path, how: signal.Signals
) -> None:
    output = tmp_path / "m"
    command = ["train", corpus_file, "--output", output, *ARGUMENTS, "--workers", 1, "--json"]
    process = start(output.as_posix(), *command)
    wait_until(lambda: epochs_done(output) >= 4 or process.poll() is not None, 300)
    assert process.poll() is None, process.communicate()
    process.send_signal(how)
    _, err = process.communicate(timeout=300)
    if how == signal.SIGINT:
        assert process.returncode == 130
        assert "Resume with the same command" in err
        check_usable(output / "best", err)
    # Of a command that could not end its Ray, two idle agents outlive it for a while.
    agents = {"ray::DashboardAgent", "ray::RuntimeEnvAgent"} if how == signal.SIGKILL else set()
    wait_until(lambda: processes_of(output.as_posix()) <= agents, 300)
    num_finished = len(finished_epochs(LocalStorage(output / "checkpoints")))
    assert num_finished >= 2  # an epoch or two may not have been registered yet
    again = start(output.as_posix(), *command)
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    result = json.loads(out)
    assert result["resumed"]
    assert result["epochs"] == 12
    epochs = epochs_shown(err)
    assert epochs[0] == num_finished + 1
    assert epochs[-1] == 12
    assert not (output / "best").exists()
    assert tracked_epochs(output / "events") == list(range(1, 13))
