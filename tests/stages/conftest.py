"""Models and rows that the tests of the commands share."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import distlstm
from distlstm.config import load_config
from tests.commands import TINY
from tests.conftest import WORDS
from tests.mlflow_server import SERVER, mlflow_server

NUM_FILES, ROWS_PER_FILE = 24, 2_000  # work for longer than it takes to notice a node's death
SLOW = ["model.wide=false", "model.hidden_dim=192", "training.min_epochs=1"]
SLOW += ["training.max_epochs=1", "training.patience=1"]


@pytest.fixture(scope="session")
def model(ray_cluster: None, corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model, trained by two workers on the shared corpus.

    Without a cascade, so that runs last long enough to be broken off.
    """
    path = tmp_path_factory.mktemp("trained") / "model"
    settings = [*TINY[1::2], "training.max_epochs=8", "model.cascade=0"]
    distlstm.train(corpus_file, output=path, config=load_config(None, settings), workers=2)
    return path


def write_rows(path: Path, num_rows: int, seed: int) -> None:
    """Rows of random words, of which a third are those of the label."""
    rng, labels = np.random.default_rng(seed), sorted(WORDS)
    words = np.array([WORDS[label] for label in labels])
    own = rng.integers(0, len(labels), num_rows)
    of_own = rng.random((num_rows, 40)) < 0.3
    rows_of_words = np.where(of_own, own[:, None], rng.integers(0, len(labels), of_own.shape))
    texts = [" ".join(row) for row in words[rows_of_words, rng.integers(0, 6, of_own.shape)]]
    chosen = [labels[i] for i in own]
    ids = pa.array(range(seed * num_rows, (seed + 1) * num_rows))
    pq.write_table(pa.table({"text": texts, "label": chosen, "id": ids}), path)


@pytest.fixture(scope="session")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of `lake`, which has many files, and of rows to train on, many and few."""
    path = tmp_path_factory.mktemp("nodes")
    (path / "lake").mkdir()
    for i in range(NUM_FILES):
        write_rows(path / f"lake/f{i:02d}.parquet", ROWS_PER_FILE, i)
    write_rows(path / "train.parquet", 4000, 1000)
    write_rows(path / "few.parquet", 500, 1000)
    return path


@pytest.fixture(scope="session")
def slow_model(lake: Path) -> Path:
    """A model without a linear half, which would answer most rows at once."""
    output = lake / "model"
    settings = [word for setting in SLOW for word in ("--set", setting)]
    arguments = ["train", lake / "few.parquet", "--output", output, *settings, "--quiet"]
    subprocess.run([sys.executable, "-m", "distlstm", *map(str, arguments)], check=True)
    return output


@pytest.fixture(params=["directory", "server"])
def client(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Any]:
    """A client of MLflow in a directory, and of a server in a process of its own."""
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed: distlstm[mlflow]")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    if request.param == "directory":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
        yield mlflow.MlflowClient()
        return
    if SERVER is None:
        pytest.skip("MLFLOW_SERVER is not the mlflow executable of an environment with a server")
    with mlflow_server(SERVER, tmp_path) as address:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        yield mlflow.MlflowClient()
