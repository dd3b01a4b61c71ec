"""Tests of commands on a cluster whose nodes are killed, drained and added."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import WORDS
from tests.nodes import Cluster
from tests.stages.test_interruption import epochs_done, wait_until

pytestmark = [pytest.mark.ray, pytest.mark.fault]
SECONDS = 300
NUM_FILES, ROWS_PER_FILE = 24, 2_000  # work for longer than it takes to notice a death
SMALL = ["--set", "model.hidden_dim=32", "--set", "training.patience=6"]
EPOCHS = ["--set", "training.min_epochs=6", "--set", "training.max_epochs=6"]


def write_rows(path: Path, num_rows: int, seed: int) -> None:
    """Rows of random words, of which a third are those of the label."""
    rng, labels = np.random.default_rng(seed), sorted(WORDS)
    words = [word for label in labels for word in WORDS[label]]
    chosen = [labels[i] for i in rng.integers(0, len(labels), num_rows)]
    texts = [
        " ".join(rng.choice(WORDS[label] if rng.random() < 0.3 else words) for _ in range(40))
        for label in chosen
    ]
    ids = pa.array(range(seed * num_rows, (seed + 1) * num_rows))
    pq.write_table(pa.table({"text": texts, "label": chosen, "id": ids}), path)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lake of many files, and rows to train on."""
    path = tmp_path_factory.mktemp("nodes")
    (path / "lake").mkdir()
    for i in range(NUM_FILES):
        write_rows(path / f"lake/f{i:02d}.parquet", ROWS_PER_FILE, i)
    write_rows(path / "train.parquet", 4000, 1000)
    return path


@pytest.fixture(scope="module")
def model(directory: Path) -> Path:
    """A model without a linear half, which would answer most rows at once."""
    command = [*SMALL, "--set", "model.wide=false", "--set", "model.hidden_dim=192", "--quiet"]
    epochs = ["--set", "training.min_epochs=1", "--set", "training.max_epochs=1"]
    output = directory / "model"
    arguments = ["train", directory / "train.parquet", "--output", output, *command, *epochs]
    subprocess.run([sys.executable, "-m", "distlstm", *map(str, arguments)], check=True)
    return output


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


def start(cluster: Cluster, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "distlstm", *map(str, arguments), "--address", cluster.address],
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


@pytest.mark.parametrize("parts", [1, 6, 15])
def test_batch_predict_goes_on_when_a_node_dies_and_when_another_joins(
    cluster: Cluster, directory: Path, model: Path, tmp_path: Path, parts: int
) -> None:
    output = tmp_path / "out"
    cluster.add(2)
    dying = cluster.add(2)
    arguments = ["batch-predict", directory / "lake", "--model", model, "--output", output]
    process = start(cluster, *arguments, "--workers", "4", "--json")
    wait(process, output, parts)
    dying.kill()
    if parts == 1:
        cluster.add(2)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert json.loads(out)["rows_out"] == NUM_FILES * ROWS_PER_FILE
    check_rows(directory, output)
    assert parts == 15 or "is lost" in err
    verified = start_verify(output)
    assert verified.returncode == 0, verified.stdout


def start_verify(output: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "distlstm", "verify", str(output)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)


@pytest.mark.parametrize("how", ["killed", "drained"])
def test_train_goes_on_with_the_workers_that_are_left(
    cluster: Cluster, directory: Path, tmp_path: Path, how: str
) -> None:
    output = tmp_path / "model"
    cluster.add(1)
    leaving = cluster.add(1)
    arguments = ["train", directory / "train.parquet", "--output", output, *SMALL, *EPOCHS]
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
