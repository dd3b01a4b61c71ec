"""Tests of `train`: the directory it writes, and that it carries on."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distlstm.config import load_config
from distlstm.model.directory import load_model
from distlstm.model.metadata import load_metadata
from distlstm.stages.run.output import sole_use
from distlstm.storage import LocalStorage
from tests.commands import TINY, run
from tests.conftest import labelled_rows

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]


def test_train_writes_a_model_directory_without_pickle(model: Path) -> None:
    assert sorted(path.name for path in model.iterdir()) == [
        "events",
        "history.parquet",
        "model.json",
        "model.safetensors",
        "report.html",
        "vocabulary.txt",
        "wide.safetensors",
    ]
    metadata = load_metadata(model)
    assert metadata["metrics"]["accuracy"] > 0.9
    assert set(metadata["baseline"]) == {"recurrent", "majority", "linear", "linear_rows"}
    assert metadata["corpus"]["num_training"] + metadata["corpus"]["num_validation"] == 600
    assert load_model(model).labels.names == ("money", "sport", "天气")
    history = pq.read_table(model / "history.parquet").to_pylist()
    assert [row["epoch"] for row in history] == list(range(1, len(history) + 1))


def test_the_same_command_is_done_already_and_a_changed_one_is_refused(
    capfd: pytest.CaptureFixture[str], corpus_file: Path, tmp_path: Path
) -> None:
    command = ["train", corpus_file, "--output", tmp_path / "m", *TINY, "--workers", 1, "--json"]
    first = run(capfd, *command)
    assert first.code == 0
    assert set(json.loads(first.out)) == {
        *("model", "metrics", "epochs", "steps", "seconds", "tokens_per_second", "resumed")
    }
    assert (tmp_path / "m/report.html").read_text().startswith("<!doctype html>")
    weights = (tmp_path / "m/model.safetensors").stat().st_mtime_ns
    again = run(capfd, *command)
    assert json.loads(again.out)["resumed"]
    assert (tmp_path / "m/model.safetensors").stat().st_mtime_ns == weights
    changed = run(capfd, *command, "--set", "model.hidden_dim=13")
    assert changed.code == 2
    assert "model.hidden_dim was 12, is 13" in changed.err


@pytest.mark.slow
def test_one_and_two_workers_have_the_same_losses(
    capfd: pytest.CaptureFixture[str], corpus_file: Path, tmp_path: Path
) -> None:
    plain = ["--set", "training.precision=fp32"]
    for name in ("dropout", "state_dropout", "token_dropout"):
        plain += ["--set", f"model.{name}=0"]
    losses = []
    for workers in (1, 2):
        output = tmp_path / str(workers)
        command = ["train", corpus_file, "--output", output, *TINY, *plain, "--workers", workers]
        assert run(capfd, *command).code == 0
        losses.append(pq.read_table(output / "history.parquet")["training_loss"].to_pylist())
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"label": [1, 2] * 150}, "300 rows"),
        ({"text": [None, "", "  "] + [f"word {i}" for i in range(297)]}, "2 with empty text"),
        ({"label": [None] * 7 + ["a", "b", "c"] * 97 + ["a", "b"]}, "7 with no label"),
        ({"label": ["only here"] + ["a", "b", "c"] * 99 + ["a", "b"]}, "at most one training row"),
    ],
)
def test_data_as_users_have_it_is_trained_on(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    change: dict[str, list[object]],
    expected: str,
) -> None:
    from distlstm.stages.run.events import Note
    from distlstm.stages.training.labelled_data import DataRequest, prepare_corpus

    path = tmp_path / "odd.parquet"
    pq.write_table(pa.table({**labelled_rows(300), **change}), path)
    notes: list[str] = []
    spec = DataRequest(training=(str(path),)).find(load_config(None), on_event=print)
    corpus = prepare_corpus(
        spec,
        LocalStorage(tmp_path),
        lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )
    summary = corpus.summary
    dropped = sum(summary.dropped.values())
    assert summary.num_training + summary.num_validation + dropped == 300
    notes.append(f"{300} rows")
    assert any(expected in note for note in notes)
    assert set(corpus.training.label_ids.tolist()) == set(range(len(corpus.labels)))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"text": ["a"] * 9, "label": ["x"] * 9}, "single label"),
        ({"text": [None] * 9, "label": ["x"] * 9}, "No row has a text"),
        ({"text": ["a", "b"], "label": ["x", "y"]}, "validation"),
        ({"text": ["a"] * 90, "label": [f"id {i}" for i in range(90)]}, "90 distinct values"),
        ({"text": ["a"] * 9, "label": [0.5] * 9}, "fractions"),
        ({"text": [1] * 9, "label": ["x"] * 9}, "not text"),
        ({"body": ["a"], "label": ["x"]}, "It has: 'body', 'label'"),
    ],
)
def test_data_that_cannot_be_trained_on_is_a_user_error_and_leaves_nothing(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, rows: dict[str, list[object]], message: str
) -> None:
    pq.write_table(pa.table(rows), tmp_path / "bad.parquet")
    outcome = run(capfd, "train", tmp_path / "bad.parquet", "--output", tmp_path / "m")
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "m").exists()


def test_too_many_workers_are_refused_with_the_arithmetic(
    capfd: pytest.CaptureFixture[str], corpus_file: Path, tmp_path: Path
) -> None:
    outcome = run(capfd, "train", corpus_file, "--output", tmp_path / "m", "--workers", 999)
    assert outcome.code == 2
    assert "999 workers of 1 CPUs" in outcome.err


@pytest.mark.parametrize("more", [[], ["--overwrite"]])
def test_a_model_that_another_command_is_at_work_on_is_left_alone(
    capfd: pytest.CaptureFixture[str], corpus_file: Path, tmp_path: Path, more: list[str]
) -> None:
    output = tmp_path / "m"
    with sole_use(LocalStorage(output)):
        (output / "checkpoints").mkdir()
        outcome = run(capfd, "train", corpus_file, "--output", output, *more)
    assert outcome.code == 2
    assert f"Another command is at work on {output}" in outcome.err
    assert [path.name for path in output.iterdir()] == ["checkpoints"]


def test_data_that_cannot_be_read_does_not_cost_the_model_it_was_to_replace(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "m/checkpoints").mkdir(parents=True)
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "bad.parquet")
    outcome = run(
        capfd, "train", tmp_path / "bad.parquet", "--output", tmp_path / "m", "--overwrite"
    )
    assert outcome.code == 2
    assert [path.name for path in tmp_path.joinpath("m").iterdir()] == ["checkpoints"]


def test_debug_shows_where_the_time_to_the_first_step_went(
    capfd: pytest.CaptureFixture[str], corpus_file: Path, tmp_path: Path
) -> None:
    command = ["train", corpus_file, *TINY, "--set", "training.max_epochs=1", "--workers", 1]
    outcome = run(capfd, *command, "--output", tmp_path / "m", "--debug")
    assert outcome.code == 0
    table = outcome.err[outcome.err.index("To the first step") :].split("\n")[2:9]
    parts = {line.rsplit(maxsplit=1)[0].strip(): float(line.split()[-1]) for line in table}
    expected = ["imports", "Ray", "encoding", "workers", "corpus and model", "first step", "in all"]
    assert list(parts) == expected
    assert sum(parts.values()) == pytest.approx(2 * parts["in all"], abs=0.7)
    quiet = run(capfd, *command, "--output", tmp_path / "n")
    assert "To the first step" not in quiet.err


def test_training_fits_a_cascade_whose_figures_are_those_of_the_model(
    capfd: pytest.CaptureFixture[str], corpus_file: Path, tmp_path: Path
) -> None:
    output = tmp_path / "m"
    command = ["train", corpus_file, "--output", output, *TINY, "--workers", 2]
    outcome = run(capfd, *command, "--set", "model.cascade=0.05")
    assert outcome.code == 0
    assert "of the validation rows are answered by the linear model alone" in outcome.out
    metadata = load_metadata(output)
    assert 0 < metadata["cascade"]["share"] <= 1
    assert load_model(output).cascade is not None
    assert "of these rows alone (early exit)" in (output / "report.html").read_text()
    assert sum(metadata["validation_score_histogram"]) == metadata["metrics"]["num_rows"]


def test_a_cascade_that_is_switched_off_is_not_in_the_model(
    capfd: pytest.CaptureFixture[str], corpus_file: Path, tmp_path: Path
) -> None:
    command = ["train", corpus_file, "--output", tmp_path / "m", *TINY, "--workers", 1]
    outcome = run(capfd, *command, "--set", "model.cascade=0")
    assert outcome.code == 0
    assert "answered by the linear model alone" not in outcome.out
    assert load_model(tmp_path / "m").cascade is None


@pytest.mark.slow
def test_a_training_that_diverges_is_tried_once_more_then_says_what_to_lower(
    capfd: pytest.CaptureFixture[str], corpus_file: Path, tmp_path: Path
) -> None:
    wild = ["training.learning_rate=10.0", "training.weight_decay=10.0", "training.max_epochs=2"]
    settings = [part for value in wild for part in ("--set", value)]
    command = ["train", corpus_file, "--output", tmp_path / "m", *TINY, *settings, "--workers", 2]
    outcome = run(capfd, *command)
    assert outcome.code == 1
    assert "restarts from the initial weights with a learning rate of 2.5" in outcome.err
    assert outcome.err.count("restarts from") == 1
    assert "diverged again" in outcome.err
    assert "with a learning rate of 2.5: " in outcome.err
    assert "Lower training.learning_rate (now 10) or training.clip_norm (now 1)" in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "m/model.json").exists()


@pytest.mark.parametrize("wide", ["true", "false"])
def test_with_macro_f1_the_written_model_predicts_rare_labels_as_validated(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, wide: str
) -> None:
    rng = np.random.default_rng(0)
    for name, num_rows in (("train", 900), ("validation", 600)):
        labels = np.where(rng.random(num_rows) < 0.08, "rare", "common")
        hints = np.where(rng.random(num_rows) < 0.75, labels, rng.permutation(labels))
        texts = [f"{hint} sign {number % 7}" for number, hint in enumerate(hints)]
        table = pa.table({"text": texts, "label": labels.tolist()})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    train, validation = tmp_path / "train.parquet", tmp_path / "validation.parquet"
    settings = [*TINY, "--set", "training.metric=macro_f1", "--set", f"model.wide={wide}"]
    command = ["train", train, "--validation", validation, "--output", tmp_path / "m", *settings]
    outcome = run(capfd, *command, "--workers", 1)
    assert outcome.code == 0, outcome.err
    expected = load_metadata(tmp_path / "m")["metrics"]
    evaluated = run(capfd, "evaluate", validation, "--model", tmp_path / "m", "--json")
    found = json.loads(evaluated.out)
    assert found["macro_f1"] == pytest.approx(expected["macro_f1"], abs=1e-3)
    assert found["log_loss"] == pytest.approx(expected["log_loss"], abs=1e-3)
