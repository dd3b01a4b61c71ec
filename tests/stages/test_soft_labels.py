"""Tests of training on the probabilities of another model, by the commands."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distlstm.text.soft_labels import SoftLabels, read_soft_labels
from tests.commands import TINY, run
from tests.conftest import WORDS, labelled_rows

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
LABELS = (*sorted(WORDS), "rumour")


def teacher(rows: dict[str, list[str]]) -> list[dict[str, float] | None]:
    """Unsure, twice as large as probabilities, and never in favour of the label `rumour`."""
    rng = np.random.default_rng(0)
    noise = rng.dirichlet(np.ones(len(LABELS)), len(rows["label"]))
    return [
        {name: float(0.8 * row[i] + 1.2 * (name == label)) for i, name in enumerate(LABELS)}
        for label, row in zip(rows["label"], noise, strict=True)
    ]


def as_soft_labels(predicted: Path) -> SoftLabels:
    """What batch-predict wrote, as the label column that docs/reference.md makes of it."""
    table = pq.read_table(predicted)
    labels = table["predicted_labels"].combine_chunks()
    scores = table["predicted_scores"].combine_chunks()
    soft = pa.MapArray.from_arrays(labels.offsets, labels.values, scores.values)
    return read_soft_labels(soft)


def test_a_model_is_distilled_from_probabilities(
    capfd: pytest.CaptureFixture[str], corpus_file: Path, tmp_path: Path
) -> None:
    rows = labelled_rows(600)
    labels = teacher(rows)
    labels[:4] = [None, {"sport": -1.0}, {"sport": float("nan")}, {"sport": 0.0}]
    data, output = tmp_path / "soft.parquet", tmp_path / "m"
    pq.write_table(pa.table({"text": rows["text"], "label": labels}), data)
    command = ["train", data, "--output", output, *TINY, "--workers", 1]
    trained = run(capfd, *command, "--set", "training.max_epochs=8")
    assert trained.code == 0, trained.err
    metadata = json.loads((output / "model.json").read_text())
    assert metadata["labels"] == sorted(LABELS)
    assert metadata["corpus"]["label_counts"]["rumour"] == 0
    assert metadata["corpus"]["dropped"] == {
        "a negative or infinite probability": 2,
        "no label": 1,
        "probabilities that are all 0": 1,
    }
    assert "'rumour'" in trained.err
    for judged_on, num_rows in ((corpus_file, 600), (data, 596)):
        command = ["evaluate", judged_on, "--model", output, "--workers", 1, "--json"]
        judged = json.loads(run(capfd, *command).out)
        assert judged["num_rows"] == num_rows
        assert judged["accuracy"] > 0.9
    predicted = tmp_path / "predicted"
    command = ["batch-predict", corpus_file, "--model", output, "--output", predicted]
    assert run(capfd, *command, "--top-k", 4).code == 0
    assert run(capfd, "verify", predicted).code == 0
    table = pq.read_table(predicted / "train.parquet")
    assert set(table["predicted_labels"][0].as_py()) == set(LABELS)
    # The teacher gives 0.7 to the right label and 0.1 to each other one, on average.
    assert np.mean(table["predicted_score"]) == pytest.approx(0.7, abs=0.06)
    soft = as_soft_labels(predicted)
    assert soft.names == tuple(sorted(LABELS))
    assert soft.probabilities.max(1) == pytest.approx(table["predicted_score"].to_numpy(), abs=1e-4)


@pytest.mark.soak
def test_labels_that_are_certain_train_as_plain_ones_do(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Also where a part of the files has plain labels, and others structs, maps or JSON objects."""
    table = pa.table(labelled_rows(600))
    quarters = [table.slice(i, 150) for i in range(0, 600, 150)]
    for name in ("plain", "mixed"):
        (tmp_path / name).mkdir()
        for i, quarter in enumerate(quarters[:3]):
            pq.write_table(quarter, tmp_path / name / f"{i}.parquet")
    sure = [[{label: 1} for label in quarter["label"].to_pylist()] for quarter in quarters]
    as_maps = pa.array([list(row.items()) for row in sure[1]], pa.map_(pa.string(), pa.float32()))
    for i, column in ((1, as_maps), (2, pa.array(sure[2]))):
        soft = quarters[i].set_column(1, "label", column)
        pq.write_table(soft, tmp_path / "mixed" / f"{i}.parquet")
    for name, labels in (("plain", quarters[3]["label"].to_pylist()), ("mixed", sure[3])):
        rows = zip(quarters[3]["text"].to_pylist(), labels, strict=True)
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        (tmp_path / name / "3.jsonl").write_text("\n".join(lines))
    options = [*TINY, "--set", "training.label_smoothing=0", "--set", "training.precision=fp32"]
    histories = []
    for name in ("plain", "mixed"):
        output = tmp_path / f"{name}-model"
        command = ["train", tmp_path / name, "--output", output, *options, "--workers", 1]
        assert run(capfd, *command).code == 0
        histories.append(pq.read_table(output / "history.parquet"))
    for figure in ("training_loss", "validation_log_loss"):
        plain, mixed = (history[figure].to_pylist() for history in histories)
        assert mixed == pytest.approx(plain, abs=1e-3)


def test_probabilities_without_names_are_refused(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    rows = {**labelled_rows(90), "label": [[0.5, 0.5]] * 90}
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    outcome = run(capfd, "train", tmp_path / "a.parquet", "--output", tmp_path / "m")
    assert outcome.code == 2
    assert "give probabilities as a struct" in " ".join(outcome.err.split())
    assert not (tmp_path / "m").exists()
