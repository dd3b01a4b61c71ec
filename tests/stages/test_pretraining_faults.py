"""Tests of pretraining under faults: workers and commands killed with SIGKILL, and Ctrl-C.

In the end there is the language model of an unbroken run with the same seed.
"""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distlstm.model.checkpoint import load_history
from distlstm.model.metadata import load_metadata
from distlstm.model.pretraining import LanguageEpoch
from distlstm.stages.training.checkpoints import last_checkpoint
from distlstm.storage import LocalStorage
from tests.commands import TINY
from tests.conftest import labelled_rows
from tests.stages.test_faults import AGENTS, SECONDS, pids_of
from tests.stages.test_interruption import processes_of, start, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.fault]
NUM_EPOCHS = 8
SETTINGS = [
    *TINY[:4],
    *("--set", f"pretraining.max_epochs={NUM_EPOCHS}"),
    *("--set", "pretraining.tokens_per_batch=256", "--set", "pretraining.precision=fp32"),
    *("--set", "pretraining.dropout=0"),
]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows that take a second or two an epoch."""
    path = tmp_path_factory.mktemp("texts") / "texts.parquet"
    pq.write_table(pa.table({"text": labelled_rows(9_000)["text"]}), path)
    return path


def epochs_at(checkpoints: Path) -> int:
    """The epochs up to the last checkpoint."""
    checkpoint = last_checkpoint(LocalStorage(checkpoints))
    if checkpoint is None:
        return 0
    with checkpoint.as_directory() as directory:
        return len(load_history(Path(directory), LanguageEpoch))


def wait_for_epochs(process: subprocess.Popen[str], checkpoints: Path, count: int) -> None:
    """Until so many epochs are saved; the command must be running still."""
    wait_for(process, lambda: epochs_at(checkpoints) >= count)


def wait_for(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Until the condition holds; the command must be running still."""
    wait_until(lambda: condition() or process.poll() is not None, SECONDS)
    assert process.poll() is None, process.communicate()


def ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    """The result of a command that must end well."""
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    return dict(json.loads(out))


def losses(directory: Path) -> list[float]:
    """Of training and validation, by epoch."""
    history = pq.read_table(directory / "history.parquet")
    assert history["epoch"].to_pylist() == list(range(1, NUM_EPOCHS + 1))
    return history["training_loss"].to_pylist() + history["validation_loss"].to_pylist()


@pytest.fixture(scope="module")
def unbroken(texts: Path, tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The losses of a run to which nothing happens."""
    output = tmp_path_factory.mktemp("unbroken") / "lm"
    command = ["pretrain", texts, "--output", output, *SETTINGS, "--workers", 2, "--json"]
    ended(start(output.as_posix(), *command))
    return losses(output)


def test_one_worker_has_the_losses_of_two(
    texts: Path, tmp_path: Path, unbroken: list[float]
) -> None:
    output = tmp_path / "lm"
    command = ["pretrain", texts, "--output", output, *SETTINGS, "--workers", 1, "--json"]
    ended(start(output.as_posix(), *command))
    assert losses(output) == pytest.approx(unbroken, rel=2e-3)


def test_killed_workers_and_a_command_killed_twice_lose_nothing(
    texts: Path, tmp_path: Path, unbroken: list[float]
) -> None:
    output = tmp_path / "lm"
    command = ["pretrain", texts, "--output", output, *SETTINGS, "--workers", 2, "--json"]
    for epochs in (1, 4):
        process = start(output.as_posix(), *command)
        wait_for_epochs(process, output / "checkpoints", epochs)
        process.kill()
        process.communicate()
        wait_until(lambda: processes_of(output.as_posix()) <= AGENTS, SECONDS)
    found = epochs_at(output / "checkpoints")
    # As if the kill had come while Ray wrote its list of checkpoints.
    (output / "checkpoints/run/checkpoint_manager_snapshot.json").write_text("")
    process = start(output.as_posix(), *command)
    wait_for_epochs(process, output / "checkpoints", 6)
    assert found >= 3
    os.kill(pids_of(output.as_posix(), "ray::RayTrainWorker")[0], signal.SIGKILL)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert result["resumed"]
    assert result["epochs"] == NUM_EPOCHS
    assert f"language model, epoch {found + 1:>2} of {NUM_EPOCHS}" in err
    assert f"language model, epoch {found:>2} of {NUM_EPOCHS}" not in err
    assert losses(output) == pytest.approx(unbroken, abs=2e-3)
    assert not (output / "checkpoints").exists()


def test_after_ctrl_c_a_shorter_time_ends_the_training_with_what_it_has(
    texts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "lm"
    command = ["pretrain", texts, "--output", output, *SETTINGS, "--workers", 1, "--json"]
    process = start(output.as_posix(), *command)
    wait_for_epochs(process, output / "checkpoints", 2)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130
    assert "Resume with the same command" in err
    found = epochs_at(output / "checkpoints")
    result = ended(start(output.as_posix(), *command, "--time-budget", "0.1"))
    assert result["epochs"] in (found, found + 1)  # an epoch that has begun comes to its end
    assert (output / "model.json").exists()


def test_one_command_for_both_kinds_of_rows_is_killed_in_either_half(
    corpus_file: Path, texts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "m"
    longer = [*TINY[4:], "--set", "training.max_epochs=12", "--set", "training.patience=12"]
    command = ["train", corpus_file, "--unlabelled", texts, "--output", output, *SETTINGS, *longer]
    command += ["--workers", 1, "--json"]
    learnt = output / "checkpoints/language_model"
    first_half = [lambda: epochs_at(learnt / "checkpoints") >= 2]
    second_half = [lambda: (learnt / "model.json").exists(), lambda: (output / "events").exists()]
    for conditions in (first_half, second_half):
        process = start(output.as_posix(), *command)
        for condition in conditions:
            wait_for(process, condition)
        process.kill()
        process.communicate()
        wait_until(lambda: processes_of(output.as_posix()) <= AGENTS, SECONDS)
    digest = (learnt / "model.json").read_bytes()
    process = start(output.as_posix(), *command)
    wait_for(process, lambda: (output / "events").exists())
    assert (learnt / "model.json").read_bytes() == digest  # it is not learnt again
    result = ended(process)
    assert result["resumed"]
    metadata = load_metadata(output)
    assert len(metadata["language_model"]["history"]) == NUM_EPOCHS
    assert metadata["metrics"]["accuracy"] > 0.9
