"""Tests of distlstm.stages.serving.batcher."""

import queue
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import distlstm
from distlstm.model.directory import TrainedModel
from distlstm.stages.prediction.predictor import Predictor
from distlstm.stages.serving.batcher import Answered, Batch, Batcher, next_batch
from distlstm.stages.serving.payload import Question
from tests.stages.serving.models import made, ragged_texts, saved, sets_model

SECONDS = 60


def asked(texts: list[str], **settings: Any) -> Question:
    return Question(texts=tuple(texts), is_list=True, **settings)


def answers(batcher: Batcher, questions: list[Question]) -> list[Answered]:
    """The answers to questions that are asked at the same time."""
    found: queue.Queue[tuple[int, Answered | Exception]] = queue.Queue()
    for i, question in enumerate(questions):
        batcher.ask(question, lambda answer, i=i: found.put((i, answer)))  # type: ignore[misc]
    by_index = dict(found.get(timeout=SECONDS) for _ in questions)
    for answer in by_index.values():
        if isinstance(answer, Exception):
            raise answer
    return [by_index[i] for i in range(len(questions))]  # type: ignore[misc]


def batcher_of(model: TrainedModel, batches: list[Batch] | None = None) -> Batcher:
    predictor = Predictor(model, device=torch.device("cpu"))
    sink = [] if batches is None else batches
    return Batcher(lambda: predictor, on_batch=sink.append)


@pytest.mark.parametrize("model", [made(), made(with_linear=False), sets_model()])
def test_however_texts_are_gathered_their_scores_are_those_of_predict(
    model: TrainedModel, tmp_path: Path
) -> None:
    texts = ragged_texts(300)
    loaded = distlstm.load_model(saved(tmp_path / "model", model))
    expected = [
        {name.removeprefix("predicted_"): value for name, value in row.items()}
        for row in loaded.predict(texts)
    ]
    order = np.random.default_rng(1).permutation(len(texts))
    groups = np.split(order, np.sort(np.random.default_rng(2).integers(0, len(texts), 90)))
    found = answers(batcher_of(model), [asked([texts[i] for i in group]) for group in groups])
    for group, answer in zip(groups, found, strict=True):
        assert answer.rows == [expected[i] for i in group]


def test_each_caller_gets_the_settings_it_asked_for(tmp_path: Path) -> None:
    model, texts = made(), ragged_texts(20)
    loaded = distlstm.load_model(saved(tmp_path / "model", model))
    settings: list[dict[str, Any]] = [{}, {"top_k": 2}, {"min_score": 0.6}, {"top_k": 9}]
    found = answers(batcher_of(model), [asked(texts, **each) for each in settings])
    for each, answer in zip(settings, found, strict=True):
        rows = [{f"predicted_{name}": v for name, v in row.items()} for row in answer.rows]
        assert rows == list(loaded.predict(texts, **each))


def test_texts_of_several_callers_go_through_the_model_together() -> None:
    batches: list[Batch] = []
    started, go_on = threading.Event(), threading.Event()
    model = made(with_linear=False)
    predictor = Predictor(model, device=torch.device("cpu"))
    classify = predictor.classify

    def slow(*arguments: Any) -> Any:
        started.set()
        go_on.wait(SECONDS)
        return classify(*arguments)

    predictor.classify = slow  # type: ignore[method-assign]
    batcher = Batcher(lambda: predictor, on_batch=batches.append)
    found: queue.Queue[Answered | Exception] = queue.Queue()
    batcher.ask(asked(["goal"]), found.put)
    assert started.wait(SECONDS), "an idle batcher begins at once"
    for word in ("bank", "loan", "match", "coach"):
        batcher.ask(asked([word]), found.put)
    go_on.set()
    for _ in range(5):
        assert isinstance(found.get(timeout=SECONDS), Answered)
    assert [batch.num_texts for batch in batches] == [1, 4]


def test_a_short_text_does_not_wait_for_long_ones_that_came_later() -> None:
    lengths = np.array([5, 900, 900, 6, 4, 12, 900])
    assert next_batch(lengths).tolist() == [0, 3, 4, 5]
    assert next_batch(np.array([900, 5, 900, 850])).tolist() == [0, 2, 3]
    assert next_batch(np.array([900, 5, 900, 850]), multiple=16).tolist() == [0, 1, 2, 3]


@given(st.lists(st.integers(1, 1_000), min_size=1, max_size=400), st.sampled_from([1, 16, 64]))
def test_a_batch_has_the_oldest_text_and_few_tokens(lengths: list[int], multiple: int) -> None:
    rows = next_batch(np.array(lengths), multiple=multiple)
    assert 0 in rows
    assert len(set(rows.tolist())) == len(rows) <= 256
    chosen = np.array(lengths)[rows]
    assert chosen.max() <= 2 * lengths[0] + 8
    assert len(rows) == 1 or len(rows) * chosen.max() <= 4_096


def test_a_new_model_answers_what_is_asked_after_it() -> None:
    first, second = (Predictor(made(seed), device=torch.device("cpu")) for seed in (0, 1))
    current = [first]
    batcher = Batcher(lambda: current[0], on_batch=lambda batch: None)
    texts = ragged_texts(50)
    (before,) = answers(batcher, [asked(texts)])
    current[0] = second
    (after,) = answers(batcher, [asked(texts)])
    assert before.rows != after.rows
    expected = answers(batcher_of(second.model), [asked(texts)])[0].rows
    assert after.rows == expected


def test_an_error_is_told_to_its_callers_and_the_next_are_answered() -> None:
    predictor = Predictor(made(), device=torch.device("cpu"))
    encode = predictor.encode

    def fails_once(*arguments: Any) -> Any:
        predictor.encode = encode  # type: ignore[method-assign]
        raise MemoryError

    predictor.encode = fails_once  # type: ignore[method-assign]
    batcher = Batcher(lambda: predictor, on_batch=lambda batch: None)
    with pytest.raises(MemoryError):
        answers(batcher, [asked(["goal"])])
    assert len(answers(batcher, [asked(["goal"])])[0].rows) == 1
