"""Tests of rows with any number of labels, by the commands."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import distlstm
from tests.commands import TINY, run
from tests.conftest import WORDS

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
TOPICS = sorted(WORDS)
LEARNS = ["training.max_epochs=12", "training.learning_rate=0.01"]
LEARNS += ["model.hidden_dim=24", "model.dropout=0.2", "model.state_dropout=0.1"]


def rows_with_sets(num_rows: int) -> dict[str, list[Any]]:
    """Texts of no topic, one, two or all three, told by their words."""
    rng = np.random.default_rng(0)
    texts, labels = [], []
    for i in range(num_rows):
        topics = [topic for bit, topic in enumerate(TOPICS) if i >> bit & 1]
        words = [str(rng.choice(WORDS[topic])) for topic in topics for _ in range(3)]
        texts.append(" ".join([*rng.permutation(words), f"number {i}"]))
        labels.append([str(topic) for topic in rng.permutation(topics)])
    return {"text": texts, "label": labels}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sets") / "train.parquet"
    rows = rows_with_sets(600)
    rows["label"][:3] = [None, [" money ", "money", "", None], []]
    pq.write_table(pa.table(rows), path)
    return path


@pytest.fixture(scope="module")
def model(data: Path, ray_cluster: None) -> Path:
    config = distlstm.load_config(None, [*TINY[1::2], *LEARNS])
    distlstm.train(data, output=data.parent / "model", config=config, workers=1)
    return data.parent / "model"


def test_a_model_of_label_sets_says_so_and_beats_chance(model: Path) -> None:
    metadata = json.loads((model / "model.json").read_text())
    assert metadata["kind"] == "multi"
    assert metadata["labels"] == TOPICS
    assert len(metadata["thresholds"]) == 3
    assert all(0 < threshold < 1 for threshold in metadata["thresholds"])
    assert metadata["corpus"]["dropped"] == {"no label": 1}
    assert metadata["corpus"]["num_training"] + metadata["corpus"]["num_validation"] == 599
    assert metadata["metrics"]["micro_f1"] > 0.9
    assert metadata["baseline"]["linear"]["micro_f1"] > 0.9
    assert metadata["metrics"]["accuracy"] > 0.6


def test_evaluate_gives_figures_by_label_and_the_rows_that_are_wrong(
    capfd: pytest.CaptureFixture[str], model: Path, data: Path, tmp_path: Path
) -> None:
    rows = rows_with_sets(80)
    rows["label"][0] = ["rumour"]  # no model knows it
    pq.write_table(pa.table(rows), tmp_path / "test.parquet")
    command = ["evaluate", tmp_path / "test.parquet", "--model", model, "--output", tmp_path / "e"]
    outcome = run(capfd, *command)
    assert outcome.code == 0, outcome.err
    assert "rumour" in outcome.err
    assert "precision" in outcome.out
    report = json.loads((tmp_path / "e/metrics.json").read_text())
    assert "confusion_matrix" not in report
    assert report["num_rows"] == 80
    assert report["labels"] == [*TOPICS, "rumour"]
    assert report["per_label"]["rumour"]["recall"] == 0
    assert all(report["per_label"][topic]["f1"] > 0.9 for topic in TOPICS)
    assert [report["per_label"][topic]["support"] for topic in TOPICS] == [40, 40, 40]
    errors = pq.read_table(tmp_path / "e/errors.parquet").to_pylist()
    assert len(errors) == 80 - round(80 * report["accuracy"])
    assert all(set(row["label"]) != set(row["predicted_labels"]) for row in errors)
    assert "rumour" in (tmp_path / "e/report.html").read_text()


def test_batch_predict_writes_the_labels_above_their_thresholds_best_first(
    capfd: pytest.CaptureFixture[str], model: Path, tmp_path: Path
) -> None:
    rows = rows_with_sets(200)
    rows["text"][5] = None
    pq.write_table(pa.table({"text": rows["text"]}), tmp_path / "in.parquet")
    command = ["batch-predict", tmp_path / "in.parquet", "--model", model, "--output"]
    assert run(capfd, *command, tmp_path / "out").code == 0
    table = pq.read_table(tmp_path / "out/in.parquet")
    assert table.column_names == ["text", "predicted_labels", "predicted_scores"]
    metadata = json.loads((model / "model.json").read_text())
    thresholds = dict(zip(metadata["labels"], metadata["thresholds"], strict=True))
    right = 0
    for row, truth in zip(table.to_pylist(), rows["label"], strict=True):
        labels, scores = row["predicted_labels"], row["predicted_scores"]
        if row["text"] is None:
            assert labels is None
            assert scores is None
            continue
        assert scores == sorted(scores, reverse=True)
        assert all(s >= thresholds[name] for name, s in zip(labels, scores, strict=True))
        right += set(labels) == set(truth)
    assert right > 150
    manifest = json.loads((tmp_path / "out/_manifest.json").read_text())
    counts = table["predicted_labels"].combine_chunks().flatten().value_counts().to_pylist()
    assert manifest["label_counts"] == {row["values"]: row["counts"] for row in counts}
    assert manifest["rows_without_prediction"] == {"null": 1}
    assert sum(manifest["score_histogram"]) == 199
    assert manifest["drift"]["labels_moved"] < 0.1
    assert run(capfd, "verify", tmp_path / "out").code == 0
    (tmp_path / "out/in.parquet").unlink()
    assert run(capfd, *command, tmp_path / "out").code == 0
    assert pq.read_table(tmp_path / "out/in.parquet").equals(table)
    for option in (["--top-k", 2], ["--min-score", 0.5]):
        refused = run(capfd, *command, tmp_path / "other", *option)
        assert refused.code == 2
        assert "one label per row" in refused.err
        assert not (tmp_path / "other").exists()
    line = run(capfd, "predict", "--model", model, rows["text"][3]).out
    as_row = json.loads(line)
    assert as_row["predicted_labels"] == table["predicted_labels"][3].as_py()


def test_labels_of_the_other_kind_are_refused(
    capfd: pytest.CaptureFixture[str], model: Path, data: Path, corpus_file: Path, tmp_path: Path
) -> None:
    judged = run(capfd, "evaluate", corpus_file, "--model", model)
    assert judged.code == 2
    assert "gives sets of labels" in " ".join(judged.err.split())
    mixed = run(capfd, "train", data, corpus_file, "--output", tmp_path / "m", *TINY)
    assert mixed.code == 2
    assert "Give files of one kind" in " ".join(mixed.err.split())
    balanced = ["--output", tmp_path / "b", "--set", "training.class_weights=balanced"]
    outcome = run(capfd, "train", data, *balanced)
    assert outcome.code == 2
    assert "needs rows of one label" in " ".join(outcome.err.split())


@pytest.mark.soak  # test_train.py compares one and two workers, too
def test_label_sets_train_alike_with_one_and_two_workers(
    capfd: pytest.CaptureFixture[str], data: Path, tmp_path: Path
) -> None:
    plain = ["--set", "training.precision=fp32", "--set", "training.max_epochs=3"]
    for name in ("dropout", "state_dropout", "token_dropout"):
        plain += ["--set", f"model.{name}=0"]
    losses, thresholds = [], []
    for workers in (1, 2):
        output = tmp_path / str(workers)
        command = ["train", data, "--output", output, *TINY, *plain, "--workers", workers]
        assert run(capfd, *command).code == 0
        losses.append(pq.read_table(output / "history.parquet")["training_loss"].to_pylist())
        thresholds.append(json.loads((output / "model.json").read_text())["thresholds"])
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert thresholds[0] == pytest.approx(thresholds[1], abs=0.02)
