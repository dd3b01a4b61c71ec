"""Every path of every command may be in an object store, and so may be read by another machine."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distlstm.storage import Directory, storage_at
from tests.conftest import WORDS, labelled_rows
from tests.object_store import environment_of, running_store

pytestmark = pytest.mark.ray
CONFIG = """
[text]
vectors = "s3://bucket/d/vectors.txt"
[model]
hidden_dim = 12
embedding_dim = 12
[training]
max_epochs = 3
rows_per_batch = 32
"""


def write_table(storage: Directory, name: str, table: pa.Table) -> None:
    with storage.replacing(name) as file:
        pq.write_table(table, file)


def write_inputs(storage: Directory) -> None:
    """What `store_paths` reads."""
    rows = pa.table(labelled_rows(600))
    write_table(storage, "train.parquet", rows)
    for i in range(3):
        write_table(storage, f"in/day={i}/rows.parquet", rows.slice(200 * i, 200))
    storage.write("config.toml", CONFIG)
    vectors = [f"{word} {' '.join(['0.5'] * 12)}" for words in WORDS.values() for word in words]
    storage.write("vectors.txt", "\n".join(vectors))


def test_every_command_works_with_every_path_in_a_store(tmp_path: Path) -> None:
    with running_store() as store, environment_of(store.variables):
        storage = storage_at("s3://bucket/d")
        write_inputs(storage)
        done = subprocess.run(
            [sys.executable, "-m", "tests.stages.store_paths", storage.location],
            env={
                **os.environ,
                "DISTLSTM_CACHE": str(tmp_path / "cache"),
                "PYTHONPATH": str(Path(__file__).parents[2]),
            },
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert [path.name for path in tmp_path.iterdir()] == ["cache"], "nothing is written here"
        names = {entry.name for entry in storage.list()}
        predicted = pa.concat_tables(
            [
                pq.read_table(pa.BufferReader(storage.read(f"out/day={i}/rows.parquet")))
                for i in range(3)
            ]
        )
    assert result["epochs"] == 3
    assert result["resumed"]
    assert result["rows"] == 600
    assert result["accuracy"] > 0.9
    assert result["trials"] == ["done", "done"]
    assert result["faults"] == []
    assert result["labels"] == ["sport"]
    assert result["reports"] == [
        "s3://bucket/d/model/report.html",
        "s3://bucket/d/out/_report.html",
        "s3://bucket/d/evaluation/report.html",
        "s3://bucket/d/study/report.html",
    ]
    assert predicted["text"].to_pylist() == labelled_rows(600)["text"]
    assert {"model/model.json", "grown/model.json", "out/_SUCCESS", "study/optuna.db"} <= names
    assert not any(name.endswith("_lock") or "/checkpoints/" in name for name in names)
