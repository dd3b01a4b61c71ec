"""Tests of training with weights: what `train` makes of them, and `evaluate` after it."""

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.commands import TINY, run
from tests.conftest import labelled_rows

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
PLAIN = ["--set", "training.precision=fp32", "--set", "training.label_smoothing=0"]
for name in ("dropout", "state_dropout", "token_dropout"):
    PLAIN += ["--set", f"model.{name}=0"]


def test_balanced_labels_are_told_apart_though_one_is_rare(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Each text may have either label; the rare one is the likelier only if weighed."""
    rows = [{"text": f"{'maybe' if i % 2 else 'no'} number {i}", "label": "no"} for i in range(800)]
    for row in rows[1::8]:
        row["label"] = "yes"
    data = tmp_path / "a.parquet"
    pq.write_table(pa.Table.from_pylist(rows), data)
    command = ["train", data, "--validation", data, *TINY, "--workers", 1, "--json"]
    recalls = []
    for kind in ("none", "balanced"):
        options = ["--output", tmp_path / kind, "--set", f"training.class_weights={kind}"]
        recalls.append(json.loads(run(capfd, *command, *options).out)["metrics"]["macro_recall"])
    assert recalls[0] == 0.5
    assert recalls[1] > 0.7


def test_rows_of_no_weight_teach_nothing_and_bad_weights_are_counted(
    capfd: pytest.CaptureFixture[str], corpus_file: Path, tmp_path: Path
) -> None:
    rows = labelled_rows(600)
    wrong = np.random.default_rng(0).random(600) < 0.6
    labels = ["sport" if bad else label for bad, label in zip(wrong, rows["label"], strict=True)]
    weights: list[float | None] = np.where(wrong, 0.0, 5.0).tolist()
    weights[-3:] = [None, -1.0, float("nan")]
    table = pa.table({"text": rows["text"], "label": labels, "trust": weights})
    pq.write_table(table, tmp_path / "a.parquet")
    options = ["--validation", corpus_file, "--set", "training.weight_column=trust"]
    data, output = tmp_path / "a.parquet", tmp_path / "m"
    options += ["--set", "training.max_epochs=8", "--workers", "1"]
    assert run(capfd, "train", data, "--output", output, *TINY, *options).code == 0
    judged = run(capfd, "evaluate", corpus_file, "--model", output, "--workers", 1, "--json")
    assert json.loads(judged.out)["accuracy"] > 0.9
    corpus = json.loads((output / "model.json").read_text())["corpus"]
    assert corpus["num_training"] == 597
    assert corpus["dropped"] == {
        "a negative weight": 1,
        "a weight that is not finite": 1,
        "no weight": 1,
    }
    predicted = tmp_path / "predicted"
    assert (
        run(capfd, "batch-predict", corpus_file, "--model", output, "--output", predicted).code == 0
    )
    assert run(capfd, "verify", predicted).code == 0


@pytest.mark.soak  # test_train.py compares one and two workers, too
def test_weighted_training_has_the_same_losses_with_one_and_two_workers(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = labelled_rows(600)
    weights = np.random.default_rng(0).random(600).tolist()
    table = pa.table({**rows, "trust": weights}).slice(0, 450)  # fewer of one label
    pq.write_table(table, tmp_path / "a.parquet")
    options = ["--set", "training.weight_column=trust", "--set", "training.class_weights=balanced"]
    losses = []
    for workers in (1, 2):
        output = tmp_path / str(workers)
        command = ["train", tmp_path / "a.parquet", "--output", output, *TINY, *PLAIN, *options]
        assert run(capfd, *command, "--workers", workers).code == 0
        losses.append(pq.read_table(output / "history.parquet")["training_loss"].to_pylist())
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.0] * 90, "All training rows have weight 0"),
        (["x"] * 90, "Column 'trust' of .* a weight is a number"),
        ([None] * 90, "a weight in 'trust'"),
    ],
)
def test_weights_that_cannot_be_used_are_a_user_error_and_leave_nothing(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, weights: list[object], message: str
) -> None:

    pq.write_table(pa.table({**labelled_rows(90), "trust": weights}), tmp_path / "a.parquet")
    outcome = run(
        capfd,
        *("train", tmp_path / "a.parquet", "--output", tmp_path / "m"),
        *("--set", "training.weight_column=trust"),
    )
    assert outcome.code == 2
    assert re.search(message, " ".join(outcome.err.split()))
    assert not (tmp_path / "m").exists()


def test_a_missing_weight_column_is_said_before_anything_starts(
    capfd: pytest.CaptureFixture[str], corpus_file: Path, tmp_path: Path
) -> None:
    command = ["train", corpus_file, "--output", tmp_path / "m"]
    outcome = run(capfd, *command, "--set", "training.weight_column=trust")
    assert outcome.code == 2
    assert "No column 'trust'" in outcome.err
    space = "search.space.training.weight_column={choice=['a']}"
    outcome = run(capfd, "tune", corpus_file, "--output", tmp_path / "s", "--set", space)
    assert outcome.code == 2
    assert "cannot be searched" in outcome.err
