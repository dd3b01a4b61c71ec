"""Tests of evaluating a model on labels that are spelled otherwise, or that it does not have."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distlstm.model.directory import save_model
from distlstm.model.label_sets import LabelSets
from distlstm.text.labels import LabelSet
from tests.commands import Outcome, run
from tests.stages.small_model import model as small_model

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
TEXTS = ["goal a", "bank b", "rain c", "goal b", "bank c", "rain a"]


def save(path: Path, names: Sequence[str], *, sets: bool = False) -> Path:
    """A MODEL with random weights and these three labels."""
    kind = {"kind": LabelSets((0.3,) * len(names))} if sets else {}
    save_model(replace(small_model(), labels=LabelSet(tuple(names)), **kind), path)
    return path


def judge(capfd: pytest.CaptureFixture[str], data: Path, model: Path, *options: object) -> Outcome:
    columns = ["--text-column", "text", "--label-column", "label"]
    return run(capfd, "evaluate", data, "--model", model, "--workers", 1, *columns, *options)


def csv(path: Path, labels: Sequence[str]) -> Path:
    rows = "".join(f"{text},{label}\n" for text, label in zip(TEXTS, labels, strict=False))
    path.write_text(f"text,label\n{rows}", encoding="utf-8")
    return path


def parquet(path: Path, labels: Sequence[object]) -> Path:
    pq.write_table(pa.table({"text": TEXTS[: len(labels)], "label": pa.array(labels)}), path)
    return path


def test_labels_meet_whatever_type_their_file_has(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = save(tmp_path / "m", ["0.0", "1.0", "True"])
    numbers = parquet(tmp_path / "int.parquet", [0, 1, 1, 0, 1])
    truth = parquet(tmp_path / "bool.parquet", [True, True])
    texts = csv(tmp_path / "a.csv", ["0", "1.00", "TRUE"])
    output = tmp_path / "e"
    outcome = run(
        capfd,
        *("evaluate", numbers, truth, texts, "--model", model, "--output", output, "--json"),
        *("--text-column", "text", "--label-column", "label"),
    )
    figures = json.loads(outcome.out)
    assert figures["labels"] == ["0.0", "1.0", "True"]
    assert [row["support"] for row in figures["per_label"].values()] == [3, 4, 3]
    errors = pq.read_table(output / "errors.parquet")
    assert 1 - errors.num_rows / 10 == pytest.approx(figures["accuracy"])
    assert "Warning" not in outcome.err


def test_members_of_label_sets_meet(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    model = save(tmp_path / "m", ["café", "1", "x"], sets=True)
    sets = [["cafe\u0301", "1.0"], ["café", "\ufeffcafé", "1"], [], ["x"]]
    data, output = parquet(tmp_path / "a.parquet", sets), tmp_path / "e"
    figures = json.loads(judge(capfd, data, model, "--output", output, "--json").out)
    assert figures["labels"] == ["café", "1", "x"]
    assert [row["support"] for row in figures["per_label"].values()] == [2, 2, 1]
    errors = pq.read_table(output / "errors.parquet")
    assert 1 - errors.num_rows / 4 == pytest.approx(figures["accuracy"])


def test_labels_that_the_model_does_not_have_are_told_even_quietly(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = save(tmp_path / "m", ["sport", "money", "天气"])
    data = csv(tmp_path / "a.csv", ["sport", "money", "5", "5.0"])
    outcome = judge(capfd, data, model, "--quiet", "--json")
    assert outcome.code == 0
    assert outcome.err == (
        "Warning: Labels that the model does not have, counted as errors: '5'.\n"
    )
    figures = json.loads(outcome.out)
    assert figures["labels"] == ["sport", "money", "天气", "5"]
    assert figures["per_label"]["5"]["support"] == 2


def test_data_with_none_of_the_labels_is_refused_with_labels_of_both(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model = save(tmp_path / "m", ["sport", "money", "天气"])
    data, output = csv(tmp_path / "a.csv", ["neg", "pos"]), tmp_path / "e"
    outcome = judge(capfd, data, model, "--output", output)
    assert (outcome.code, outcome.out) == (2, "")
    assert "The data has 'neg', 'pos'; the model has 'sport', 'money', '天气'." in outcome.err
    assert not (output / "metrics.json").exists()
