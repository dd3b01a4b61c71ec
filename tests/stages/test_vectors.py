"""Tests of training from pretrained vectors."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from distlstm.config import load_config
from distlstm.data.corpus import EncodedCorpus
from distlstm.model.directory import load_model
from distlstm.model.loop import Worker
from distlstm.model.metadata import load_metadata
from distlstm.stages.run.events import Note
from distlstm.stages.training.job import TrainingJob
from distlstm.stages.training.labelled_data import DataRequest, prepare_corpus
from distlstm.storage import LocalStorage
from tests.commands import TINY, run
from tests.conftest import WORDS

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
TOKENS = [*WORDS["sport"], *WORDS["money"], "下"]


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """A file with a vector of 12 numbers for 13 tokens of the corpus, some of them capitalised."""
    path = tmp_path / "vectors.txt"
    rng = np.random.default_rng(0)
    rows = {token: rng.normal(size=12) for token in [*TOKENS, "elsewhere"]}
    lines = [f"{token.title()} {' '.join(map(str, row))}" for token, row in rows.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def prepare(corpus_file: Path, directory: Path, settings: list[str]) -> tuple[EncodedCorpus, str]:
    notes: list[str] = []
    corpus = prepare_corpus(
        DataRequest(training=(str(corpus_file),)).find(load_config(None, settings), on_event=print),
        LocalStorage(directory),
        lambda event: notes.append(event.text) if isinstance(event, Note) else None,
    )
    return corpus, "\n".join(notes)


def test_a_training_starts_from_the_vectors_and_says_how_much_they_cover(
    corpus_file: Path, vectors: Path, tmp_path: Path
) -> None:
    settings = [*TINY[1::2], f"text.vectors={vectors}"]
    corpus, notes = prepare(corpus_file, tmp_path, settings)
    occurrences = np.concatenate(
        [corpus.training.take(np.array([row])).token_ids for row in range(len(corpus.training))]
    )
    ids = corpus.vocabulary.tokens.to_pylist()
    covered = np.isin(occurrences, [ids.index(token) for token in TOKENS]).mean()
    size = len(corpus.vocabulary)
    expected = f"for 13 of the {size} tokens of the vocabulary, {covered:.1%} of the text"
    assert f"Pretrained vectors {expected}" in notes
    matched = corpus.vectors
    assert matched is not None
    embedding = TrainingJob(corpus, load_config(None, settings), Worker()).training.model.embedding
    for token in TOKENS:
        row = embedding.weight[ids.index(token)].detach()
        wanted = torch.tensor(matched[ids.index(token)])
        assert float(torch.cosine_similarity(row, wanted, dim=0)) == pytest.approx(1, abs=1e-5)


def test_a_model_keeps_frozen_vectors_and_needs_the_file_no_more(
    capfd: pytest.CaptureFixture[str], corpus_file: Path, vectors: Path, tmp_path: Path
) -> None:
    output, setting = tmp_path / "m", f"text.vectors={vectors}"
    frozen = ("--set", "training.frozen_epochs=9", "--set", "training.max_epochs=2")
    precise = ("--set", "training.precision=fp32", "--workers", 2)
    command = ["train", corpus_file, "--output", output, *TINY, "--set", setting, *frozen, *precise]
    outcome = run(capfd, *command)
    assert outcome.code == 0, outcome.err
    assert load_metadata(output)["corpus"]["num_vectors"] == 13
    corpus, _ = prepare(corpus_file, tmp_path, [*TINY[1::2], setting])
    start = TrainingJob(corpus, load_config(None, TINY[1::2]), Worker()).training.model
    vectors.write_text(vectors.read_text(encoding="utf-8") + "more 1 2 3 4 5 6 7 8 9 10 11 12\n")
    changed = run(capfd, *command)
    assert changed.code == 2
    assert "vectors.size was" in changed.err
    vectors.unlink()
    model = load_model(output)
    assert torch.equal(model.classifier.embedding.weight, start.embedding.weight)
    assert run(capfd, "predict", "--model", output, "a goal").code == 0


@pytest.mark.slow
def test_the_trials_of_a_study_start_from_the_vectors(
    capfd: pytest.CaptureFixture[str], corpus_file: Path, vectors: Path, tmp_path: Path
) -> None:
    command = [
        *("tune", corpus_file, "--output", tmp_path / "s", "--trials", 2, *TINY),
        *("--set", f"text.vectors={vectors}", "--set", "training.max_epochs=1"),
        *("--set", "search.space.model.hidden_dim={choice=[8, 12]}"),
    ]
    outcome = run(capfd, *command)
    assert outcome.code == 0, outcome.err
    assert "model.embedding_dim is fixed by text.vectors, and not searched" in outcome.err
    assert outcome.err.count("Pretrained vectors for 13") == 1
    assert pq.read_table(tmp_path / "s/trials.parquet").num_rows == 2
    assert load_metadata(tmp_path / "s/best")["corpus"]["num_vectors"] == 13


@pytest.mark.parametrize(
    ("command", "content", "settings", "message"),
    [
        (
            "train",
            "a 1 2 3\n",
            [],
            "have dimension 3, but model.embedding_dim is 12. Add --set",
        ),
        ("tune", "a 1 2 3\n", [], "have dimension 3, but model.embedding_dim is 12. Add --set"),
        (
            "tune",
            "a 1 2 3\n",
            ["model.embedding_dim=3", "search.space={'model.embedding_dim' = {choice = [3, 4]}}"],
            "nothing else to search",
        ),
        ("train", None, [], "is not a file"),
        ("train", "no vectors here\n", [], "line 1, is not a word and 2 numbers"),
        ("train", "a 1\nb 2\ngoal x\n", ["model.embedding_dim=1"], "line 3: 'goal' is not"),
        ("train", "a 1\nb 2\n", ["model.embedding_dim=1"], "None of the"),
    ],
)
def test_vectors_that_cannot_be_used_are_a_user_error_and_leave_nothing(
    capfd: pytest.CaptureFixture[str],
    corpus_file: Path,
    tmp_path: Path,
    command: str,
    content: str | None,
    settings: list[str],
    message: str,
) -> None:
    file = tmp_path / "v.txt"
    if content is not None:
        file.write_text(content)
    arguments = [f"text.vectors={file}", *settings]
    changes = [part for setting in arguments for part in ("--set", setting)]
    outcome = run(capfd, command, corpus_file, "--output", tmp_path / "m", *TINY, *changes)
    assert outcome.code == 2
    assert message in outcome.err
    assert not (tmp_path / "m").exists()
