"""Tests that kill nodes under `evaluate`, `tune` and the encoding of a corpus."""

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from distlstm.config import ExperimentConfig
from distlstm.data import encoding
from distlstm.data.corpus import METADATA_FILE, EncodedCorpus
from distlstm.data.encoding import encode_corpus
from distlstm.stages.training.labelled_data import DataRequest
from distlstm.storage import LocalStorage
from tests.nodes import Cluster
from tests.stages.conftest import NUM_FILES, ROWS_PER_FILE, write_rows
from tests.stages.test_interruption import wait_until
from tests.stages.test_nodes import SECONDS, start
from tests.stages.test_tune_faults import num_reports

pytestmark = [pytest.mark.ray, pytest.mark.soak]
NUM_TRIALS, NUM_EPOCHS = 4, 3

GRID = {
    "model.hidden_dim": [16, 24],
    "model.embedding_dim": [16, 32],
    "model.num_layers": [1],
    "model.dropout": [0.5],
    "training.learning_rate": [0.003],
}
"""Of as many points as there are trials, so that a killed study proposes what a whole one does."""
STUDY = [
    *(
        word
        for name, values in GRID.items()
        for word in ("--set", f"search.space.{name}={{choice={values}}}")
    ),
    *("--set", f"training.max_epochs={NUM_EPOCHS}", "--set", f"training.patience={NUM_EPOCHS}"),
    *("--set", f"search.grace_epochs={NUM_EPOCHS}", "--set", "search.algorithm=grid"),
    *("--trials", NUM_TRIALS, "--json"),
]


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


def result_of(process: subprocess.Popen[str]) -> dict[str, Any]:
    """What a command has found, when it has ended well."""
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    return dict(json.loads(out))


def wait_for_reports(process: subprocess.Popen[str], study: Path, count: int) -> None:
    wait_until(lambda: num_reports(study) >= count or process.poll() is not None, SECONDS)
    assert process.poll() is None, process.communicate()


def losses(study: Path) -> list[tuple[str, int, float]]:
    """The validation loss of every epoch of every trial."""
    epochs = pq.read_table(study / "epochs.parquet").to_pylist()
    return sorted((epoch["trial"], epoch["epoch"], epoch["loss"]) for epoch in epochs)


def test_a_study_waits_without_a_node_and_finds_what_it_would_have_found_without_deaths(
    cluster: Cluster, lake: Path, tmp_path: Path
) -> None:
    broken, unbroken = tmp_path / "broken", tmp_path / "unbroken"
    dying = [cluster.add(1), cluster.add(1)]
    process = start(cluster, "tune", lake / "train.parquet", "--output", broken, *STUDY)
    for node, num_epochs in zip(dying, (1, 3), strict=True):
        wait_for_reports(process, broken, num_epochs)
        node.kill()
    assert process.stderr is not None
    waiting = "Waiting for workers: a trial takes 1 workers of 1 CPUs each, and the cluster has no"
    assert any(waiting in line for line in iter(process.stderr.readline, ""))
    cluster.add(2)
    trials = result_of(process)["trials"]
    assert [trial["state"] for trial in trials] == ["done"] * NUM_TRIALS
    result_of(start(cluster, "tune", lake / "train.parquet", "--output", unbroken, *STUDY))
    assert len(losses(broken)) == NUM_TRIALS * NUM_EPOCHS
    assert losses(broken) == losses(unbroken)


def test_an_evaluation_gives_the_same_metrics_when_a_node_dies(
    cluster: Cluster, lake: Path, slow_model: Path
) -> None:
    arguments = ["evaluate", lake / "lake", "--model", slow_model, "--workers", "2:4", "--json"]
    cluster.add(2)
    dying = cluster.add(2)
    process = start(cluster, *arguments)
    wait_until(lambda: bool(dying.pids("ray::_Worker.work")), SECONDS)
    dying.kill()
    broken = result_of(process)
    assert broken["num_rows"] == NUM_FILES * ROWS_PER_FILE
    unbroken = result_of(start(cluster, *arguments))
    assert broken["per_label"] == unbroken["per_label"]
    assert broken["log_loss"] == pytest.approx(unbroken["log_loss"])


def shards(output: Path) -> list[Path]:
    """The shards that are written."""
    return list(output.rglob("training-*.training"))


def rows_of(corpus: EncodedCorpus) -> list[tuple[int, bytes]]:
    """All rows of both splits, sorted: label and tokens."""
    found: list[tuple[int, bytes]] = []
    for split in (corpus.training, corpus.validation):
        rows = split.take(np.arange(len(split)))
        tokens = np.split(rows.token_ids, rows.offsets[1:-1])
        found += zip(rows.label_ids.tolist(), (row.tobytes() for row in tokens), strict=True)
    return sorted(found)


def test_an_encoding_is_the_same_when_nodes_die_while_it_counts_and_writes(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large, output = tmp_path / "large", tmp_path / "model"
    large.mkdir()
    for i in range(16):
        write_rows(large / f"{i}.parquet", 5_000, i)
        uncompressed = pq.read_table(large / f"{i}.parquet")
        pq.write_table(uncompressed, large / f"{i}.parquet", compression="none")
    dying = [cluster.add(1), cluster.add(1)]
    cluster.add(1)
    process = start(cluster, "train", large, "--output", output, "--workers", "1")
    wait_until(lambda: bool(dying[0].pids("ray::MapBatches")), SECONDS)
    dying[0].kill()
    wait_until(lambda: bool(shards(output) and dying[1].pids("ray::MapBatches")), SECONDS)
    dying[1].kill()
    wait_until(
        lambda: bool(list(output.rglob(METADATA_FILE))) or process.poll() is not None, SECONDS
    )
    process.kill()
    process.communicate()
    (metadata,) = output.rglob(METADATA_FILE)
    broken = EncodedCorpus(LocalStorage(metadata.parent))
    monkeypatch.setattr(encoding, "_SMALL", 2**40)  # so that this process encodes it
    spec = DataRequest(training=(str(large),)).find(ExperimentConfig(), on_event=print)
    unbroken = encode_corpus(spec, LocalStorage(tmp_path / "corpus"), progress=lambda *_: None)
    assert broken.summary == unbroken.summary
    assert broken.vocabulary.to_text() == unbroken.vocabulary.to_text()
    assert rows_of(broken) == rows_of(unbroken)
