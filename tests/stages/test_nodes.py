"""Tests of commands on a cluster whose nodes are killed, drained and added."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.nodes import Cluster
from tests.stages.conftest import NUM_FILES, ROWS_PER_FILE
from tests.stages.test_interruption import epochs_done, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.fault]
SECONDS = 300
SMALL = ["--set", "model.hidden_dim=32", "--set", "training.patience=6"]
EPOCHS = ["--set", "training.min_epochs=6", "--set", "training.max_epochs=6"]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


def start(cluster: Cluster, *arguments: object) -> subprocess.Popen[str]:
    command = [*cluster.within, sys.executable, "-m", "distlstm", *map(str, arguments)]
    return subprocess.Popen(
        [*command, "--address", cluster.address],
        env=cluster.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait(process: subprocess.Popen[str], parts: Path, count: int) -> None:
    wait_until(
        lambda: len(list(parts.glob("*.parquet"))) >= count or process.poll() is not None, SECONDS
    )
    assert process.poll() is None, process.communicate()


def check_rows(directory: Path, output: Path) -> None:
    """Every row has come out once, in order, with its text."""
    for file in sorted((directory / "lake").glob("*.parquet")):
        before, after = (pq.ParquetFile(path).read() for path in (file, output / file.name))
        assert after.select(before.column_names).equals(before), file
        assert after["predicted_label"].null_count == 0
    assert (output / "_SUCCESS").exists()


def test_batch_predict_goes_on_when_a_node_dies_and_with_one_that_joins(
    cluster: Cluster, lake: Path, slow_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    cluster.add(1)
    dying = cluster.add(1)
    arguments = ["batch-predict", lake / "lake", "--model", slow_model, "--output", output]
    process = start(cluster, *arguments, "--workers", "2", "--json")
    wait(process, output, 1)
    dying.kill()
    joined = cluster.add(1)
    at_work = "ray::_Worker.work"
    wait_until(lambda: bool(joined.pids(at_work)) or process.poll() is not None, SECONDS)
    assert process.poll() is None, process.communicate()
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert json.loads(out)["rows_out"] == NUM_FILES * ROWS_PER_FILE
    check_rows(lake, output)
    assert "is lost" in err
    verified = start_verify(output)
    assert verified.returncode == 0, verified.stdout


def start_verify(output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distlstm", "verify", str(output)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


@pytest.mark.parametrize("how", ["killed", "drained"])
def test_train_goes_on_with_the_workers_that_are_left(
    cluster: Cluster, lake: Path, tmp_path: Path, how: str
) -> None:
    output = tmp_path / "model"
    cluster.add(1)
    leaving = cluster.add(1)
    arguments = ["train", lake / "train.parquet", "--output", output, *SMALL, *EPOCHS]
    process = start(cluster, *arguments, "--workers", "2", "--json")
    wait_until(lambda: epochs_done(output) >= 1 or process.poll() is not None, SECONDS)
    assert process.poll() is None, process.communicate()
    if how == "killed":
        leaving.kill()
    else:
        cluster.drain(leaving, seconds=60)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert json.loads(out)["epochs"] == 6
    assert json.loads(out)["metrics"]["accuracy"] > 0.85
    assert ("is lost" if how == "killed" else "is drained") in err
