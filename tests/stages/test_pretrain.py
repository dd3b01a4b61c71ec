"""Tests of `pretrain`, and of trainings and studies that begin with a language model."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import distlstm
from distlstm.config import load_config
from distlstm.model.directory import load_model
from distlstm.model.language_directory import load_language_model
from distlstm.model.metadata import load_metadata
from tests.commands import TINY, run
from tests.conftest import labelled_rows

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
SHORT = [
    *TINY[:4],
    *("--set", "pretraining.max_epochs=3", "--set", "pretraining.tokens_per_batch=256"),
    *("--set", "pretraining.precision=fp32"),
]
ONE = ["--workers", 1]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows without a label column, some of them without a text."""
    path = tmp_path_factory.mktemp("texts") / "texts.parquet"
    texts = [*labelled_rows(900)["text"], None, " "]
    pq.write_table(pa.table({"text": texts, "id": range(len(texts))}), path)
    return path


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Few labelled rows."""
    path = tmp_path_factory.mktemp("few") / "few.parquet"
    pq.write_table(pa.table(labelled_rows(90)), path)
    return path


@pytest.fixture(scope="module")
def language_model(
    ray_cluster: None, texts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A language model of these rows."""
    path = tmp_path_factory.mktemp("language") / "lm"
    distlstm.pretrain(texts, output=path, config=load_config(None, SHORT[1::2]), workers=1)
    return path


def test_pretrain_writes_a_language_model_and_the_same_command_has_nothing_to_do(
    capfd: pytest.CaptureFixture[str], texts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "lm"
    command = ["pretrain", texts, "--output", output, *SHORT, *ONE]
    first = run(capfd, *command)
    assert first.code == 0, first.err
    assert "Perplexity" in first.out
    assert f"distlstm train DATA --init {output}" in first.out.replace("\n", " ")
    assert "Rows left out: 1 with empty text, 1 with null text." in first.err
    assert "language model, epoch  3 of 3" in first.err
    assert sorted(path.name for path in output.iterdir()) == [
        "history.parquet",
        "model.json",
        "model.safetensors",
        "report.html",
        "vocabulary.txt",
    ]
    history = pq.read_table(output / "history.parquet").to_pylist()
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert history[-1]["perplexity"] < history[0]["perplexity"]
    assert "Perplexity by epoch" in (output / "report.html").read_text()
    again = run(capfd, *command, "--json")
    assert "nothing to do" in again.err
    result = json.loads(again.out)
    assert result["resumed"]
    assert result["perplexity"] == pytest.approx(history[-1]["perplexity"])
    assert result["rows"] + load_language_model(output).metadata["corpus"]["num_validation"] == 900
    changed = run(capfd, *command, "--set", "pretraining.max_epochs=4")
    assert changed.code == 2
    assert "pretraining.max_epochs was 3, is 4" in changed.err
    other = run(capfd, *command, "--set", "training.learning_rate=0.1")  # has no effect on it
    assert other.code == 0
    report = run(capfd, "report", output)
    assert report.code == 0
    assert (output / "report.html").exists()


def test_a_training_that_begins_with_a_language_model_is_ahead(
    capfd: pytest.CaptureFixture[str], language_model: Path, few: Path, tmp_path: Path
) -> None:
    accuracies = {}
    for name, more in (("scratch", []), ("begun", ["--init", language_model])):
        output = tmp_path / name
        command = ["train", few, "--output", output, *TINY, *more, *ONE]
        outcome = run(capfd, *command)
        assert outcome.code == 0, outcome.err
        # Without unlabelled rows, the settings of pretraining are no part of the command.
        assert "nothing to do" in run(capfd, *command, "--set", "pretraining.max_epochs=5").err
        history = pq.read_table(output / "history.parquet")
        accuracies[name] = max(history["validation_accuracy"].to_pylist())
    assert accuracies["begun"] > accuracies["scratch"]
    learnt, model = load_language_model(language_model), load_model(tmp_path / "begun")
    known = model.vocabulary.tokens[: len(learnt.vocabulary)]
    assert known.equals(learnt.vocabulary.tokens)
    found = load_metadata(tmp_path / "begun")["language_model"]
    assert found["perplexity"] == learnt.metadata["metrics"]["perplexity"]
    assert len(found["history"]) == 3
    assert "began with a language model" in (tmp_path / "begun/report.html").read_text()


def test_one_command_learns_from_both_kinds_of_rows(
    capfd: pytest.CaptureFixture[str], texts: Path, few: Path, tmp_path: Path
) -> None:
    output = tmp_path / "m"
    command = ["train", few, "--unlabelled", texts, "--output", output, *TINY, *SHORT[4:], *ONE]
    outcome = run(capfd, *command)
    assert outcome.code == 0, outcome.err
    assert "language model, epoch  3 of 3" in outcome.err
    assert "Language model: " in outcome.err
    assert not (output / "checkpoints").exists()
    metadata = load_metadata(output)
    # All texts, and the labelled ones that are not held out; few of them measure the perplexity.
    assert 900 * 0.9 < metadata["language_model"]["num_rows"] < 900 + 90
    assert "nothing to do" in run(capfd, *command).err
    changed = run(capfd, *command, "--set", "pretraining.max_epochs=4")
    assert changed.code == 2
    assert "pretraining.max_epochs was 3, is 4" in changed.err
    predicted = run(capfd, "predict", "--model", output, "team goal match league")
    assert json.loads(predicted.out)["predicted_label"] == "sport"


def test_a_study_begins_with_a_language_model_and_does_not_search_its_sizes(
    capfd: pytest.CaptureFixture[str], language_model: Path, few: Path, tmp_path: Path
) -> None:
    output = tmp_path / "study"
    command = ["tune", few, "--init", language_model, "--output", output, "--trials", 2, *TINY]
    outcome = run(capfd, *command, "--json")
    assert outcome.code == 0, outcome.err
    trials = json.loads(outcome.out)["trials"]
    assert len(trials) == 2
    for trial in trials:
        assert set(trial["parameters"]) == {"model.dropout", "training.learning_rate"}
    learnt, best = load_language_model(language_model), load_model(output / "best")
    assert best.vocabulary.tokens[: len(learnt.vocabulary)].equals(learnt.vocabulary.tokens)
    assert "language_model" in load_metadata(output / "best")
    assert "nothing to do" in run(capfd, *command).err


def test_a_classifier_is_no_beginning_of_a_study(
    capfd: pytest.CaptureFixture[str], model: Path, few: Path, tmp_path: Path
) -> None:
    outcome = run(capfd, "tune", few, "--init", model, "--output", tmp_path / "s", *TINY)
    assert outcome.code == 2
    assert "is a classifier" in outcome.err
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("command", ["predict", "evaluate", "batch-predict"])
def test_a_language_model_is_no_classifier(
    capfd: pytest.CaptureFixture[str], language_model: Path, few: Path, tmp_path: Path, command: str
) -> None:
    arguments = {
        "predict": ["a text"],
        "evaluate": [few],
        "batch-predict": [few, "--output", tmp_path / "out"],
    }[command]
    outcome = run(capfd, command, *arguments, "--model", language_model)
    assert outcome.code == 2
    assert "is a language model, which gives no labels" in outcome.err
    assert f"--init {language_model}" in outcome.err


def test_other_sizes_than_the_language_models_are_refused_with_what_to_add(
    capfd: pytest.CaptureFixture[str], language_model: Path, few: Path, tmp_path: Path
) -> None:
    settings = [*TINY, "--set", "model.hidden_dim=13", "--set", 'model.pooling=["mean"]']
    command = ["train", few, "--init", language_model, "--output", tmp_path / "m", *settings]
    outcome = run(capfd, *command)
    assert outcome.code == 2
    assert "was trained with model.hidden_dim = 12 (this command: 13)." in outcome.err
    assert "pooling" not in outcome.err  # which a language model has not


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{texts}", "--text-column", "body"], "No column 'body'"),
        (["{gone}"], "gone.parquet"),
        (["{texts}", "--set", "pretraining.max_epoch=3"], "Did you mean pretraining.max_epochs?"),
        (["{texts}", "--set", "pretraining.tokens_per_window=2"], "must be from 3"),
        (["{texts}", "--time-budget", "soon"], "is not a duration"),
        (["{texts}", "--workers", 99], "99 workers"),
    ],
)
def test_bad_input_is_refused_before_the_work(
    capfd: pytest.CaptureFixture[str],
    texts: Path,
    tmp_path: Path,
    arguments: list[object],
    message: str,
) -> None:
    names = {"{texts}": texts, "{gone}": tmp_path / "gone.parquet"}
    found = [names.get(str(part), part) for part in arguments]
    outcome = run(capfd, "pretrain", *found, "--output", tmp_path / "lm", *SHORT)
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "lm").exists()


def test_texts_inside_the_output_and_two_beginnings_are_refused(
    capfd: pytest.CaptureFixture[str], language_model: Path, texts: Path, few: Path, tmp_path: Path
) -> None:
    inside = run(capfd, "pretrain", texts, "--output", texts.parent, "--overwrite", *SHORT)
    assert inside.code == 2
    assert "lies inside the output" in inside.err
    both = ["--init", language_model, "--unlabelled", texts]
    outcome = run(capfd, "train", few, "--output", tmp_path / "m", *both, *TINY)
    assert outcome.code == 2
    assert "exclude each other" in outcome.err


@pytest.mark.slow
def test_the_time_budget_ends_the_training_within_an_epoch(
    capfd: pytest.CaptureFixture[str], texts: Path, tmp_path: Path
) -> None:
    endless = ["--set", "pretraining.max_epochs=100000", "--set", "pretraining.steps=9999999"]
    limited = [*SHORT, *endless, "--time-budget", "3s", *ONE]
    outcome = run(capfd, "pretrain", texts, "--output", tmp_path / "lm", *limited, "--json")
    assert outcome.code == 0, outcome.err
    result = json.loads(outcome.out)
    assert 1 <= result["epochs"] < 100_000
    assert (tmp_path / "lm/model.json").exists()
