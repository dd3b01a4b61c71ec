"""Tests of going on from an earlier model."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch

from distlstm.config import load_config
from distlstm.model.directory import load_model
from distlstm.model.loop import Worker
from distlstm.model.metadata import load_metadata
from distlstm.stages.training.job import TrainingJob
from distlstm.stages.training.labelled_data import DataRequest, prepare_corpus
from distlstm.storage import LocalStorage
from tests.commands import TINY, run
from tests.conftest import labelled_rows

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
ONE_EPOCH = [*TINY, "--set", "training.max_epochs=1", "--workers", 1]
DISHES = ["soup", "bread", "salad", "rice"]


@pytest.fixture
def new_rows(tmp_path: Path) -> Path:
    """Rows of two labels that the model knows and a new one; none of its label 天气."""
    rows = labelled_rows(300)
    dishes = [f"{DISHES[i % 4]} {DISHES[i // 4 % 4]} {DISHES[i // 16 % 4]} {i}" for i in range(60)]
    table = pa.table(rows).filter(pc.field("label") != "天气")
    dishes_table = pa.table({"text": dishes, "label": ["food"] * len(dishes)})
    path = tmp_path / "new.parquet"
    pq.write_table(pa.concat_tables([table, dishes_table]), path)
    return path


def first_accuracy(model: Path) -> float:
    return float(pq.read_table(model / "history.parquet")["validation_accuracy"][0].as_py())


def test_a_training_that_goes_on_is_ahead_after_one_epoch_and_only_grows(
    capfd: pytest.CaptureFixture[str], model: Path, new_rows: Path, tmp_path: Path
) -> None:
    warm = ["train", new_rows, "--init", model, "--output", tmp_path / "warm", *ONE_EPOCH]
    outcome = run(capfd, *warm)
    assert outcome.code == 0, outcome.err
    scratch = run(capfd, "train", new_rows, "--output", tmp_path / "scratch", *ONE_EPOCH)
    assert scratch.code == 0, scratch.err
    assert first_accuracy(tmp_path / "warm") > first_accuracy(tmp_path / "scratch") + 0.1
    earlier, grown = load_model(model), load_model(tmp_path / "warm")
    assert grown.labels.names == ("food", "money", "sport", "天气")
    num_earlier, num_tokens = len(earlier.vocabulary), len(grown.vocabulary)
    assert grown.vocabulary.tokens[:num_earlier].equals(earlier.vocabulary.tokens)
    assert set(DISHES) <= set(grown.vocabulary.tokens[num_earlier:].to_pylist())
    kept = f"{num_earlier:,} of {num_tokens:,} tokens and 3 of 4 labels kept from the earlier"
    assert kept in outcome.err
    assert "without a training row, which it may forget: '天气'" in outcome.err
    assert "too few to learn" not in outcome.err
    text = run(capfd, "predict", "--model", tmp_path / "warm", "team goal match league")
    assert json.loads(text.out)["predicted_label"] == "sport"
    assert "nothing to do" in run(capfd, *warm).err
    other = run(capfd, *[tmp_path / "warm" if part == model else part for part in warm[:-2]])
    assert other.code == 2
    assert "contains the model of --init" in other.err
    replaced = ["train", new_rows, "--init", tmp_path / "scratch", "--output", tmp_path / "warm"]
    changed = run(capfd, *replaced, *ONE_EPOCH)
    assert changed.code == 2
    assert f"init was '{earlier.fingerprint}'" in changed.err


@pytest.mark.parametrize(
    ("settings", "messages"),
    [
        (
            ["model.hidden_dim=13", "model.cell=gru"],
            [
                'model.cell = "lstm" (this command: "gru")',
                "model.hidden_dim = 12 (this command: 13)",
                "add --set 'model.cell=\"lstm\"' --set model.hidden_dim=12.",
            ],
        ),
        (["text.lowercase=false"], ["text.lowercase = true", "--set text.lowercase=true"]),
        (['model.pooling=["max"]'], ['--set \'model.pooling=["last", "max", "mean"]\'']),
    ],
)
def test_a_model_of_other_text_or_architecture_is_refused_with_what_to_add(
    capfd: pytest.CaptureFixture[str],
    model: Path,
    new_rows: Path,
    tmp_path: Path,
    settings: list[str],
    messages: list[str],
) -> None:
    changes = [part for setting in settings for part in ("--set", setting)]
    command = ["train", new_rows, "--init", model, "--output", tmp_path / "m", *TINY, *changes]
    outcome = run(capfd, *command)
    assert outcome.code == 2
    for message in messages:
        assert message in outcome.err
    assert not (tmp_path / "m").exists()


def test_what_is_no_model_is_refused_and_the_model_itself_is_never_replaced(
    capfd: pytest.CaptureFixture[str], model: Path, new_rows: Path, tmp_path: Path
) -> None:
    gone = run(
        capfd, "train", new_rows, "--init", tmp_path / "gone", "--output", tmp_path / "m", *TINY
    )
    assert gone.code == 2
    assert "is not a model directory" in gone.err
    for output in (model, model.parent):
        command = ["train", new_rows, "--init", model, "--output", output, "--overwrite", *TINY]
        outcome = run(capfd, *command)
        assert outcome.code == 2
        assert "contains the model of --init" in outcome.err
    assert load_metadata(model)["labels"] == ["money", "sport", "天气"]


def test_pretrained_vectors_are_for_the_new_tokens_and_the_models_tokens_keep_theirs(
    model: Path, new_rows: Path, tmp_path: Path
) -> None:
    vectors = tmp_path / "v.txt"
    dimension = 12
    lines = [f"{token} {' '.join('1' * dimension)}" for token in [*DISHES, "goal"]]
    vectors.write_text("\n".join(lines))
    config = load_config(None, [*TINY[1::2], f"text.vectors={vectors}"])
    spec = DataRequest(training=(str(new_rows),), init=LocalStorage(model)).find(
        config, on_event=print
    )
    corpus = prepare_corpus(spec, LocalStorage(tmp_path), lambda event: None)
    job = TrainingJob(corpus, config, Worker(), init=LocalStorage(model))
    weight = job.training.model.embedding.weight.detach()
    earlier = load_model(model).classifier.embedding.weight
    assert torch.equal(weight[: len(earlier)], earlier)
    row = weight[corpus.vocabulary.tokens.to_pylist().index("soup")]
    assert torch.equal(row, row[:1].expand(dimension))
