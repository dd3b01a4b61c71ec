"""Tests of distlstm.stages.predictor."""

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distlstm.config import ExperimentConfig, ModelConfig, TrainingConfig
from distlstm.data.batching import BatchLimits
from distlstm.model.cascade import Cascade
from distlstm.model.classifier import Classifier
from distlstm.model.linear import LinearModel
from distlstm.model.ngrams import NgramFeatures
from distlstm.stages.prediction import predictor as module
from distlstm.stages.prediction.predictor import Predictor
from tests.stages.small_model import LABELS, TOKENS, model, predictor

_WORDS = ["goal", "bank", "rain", "a", "x"]
_TEXTS = st.lists(st.none() | st.lists(st.sampled_from(_WORDS), min_size=1))


def texts_of(rows: list[list[str] | None]) -> pa.Array:
    return pa.array([None if row is None else " ".join(row) for row in rows], pa.string())


def test_equal_texts_go_through_the_model_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    subject = predictor()
    forward = subject.classifier.forward
    monkeypatch.setattr(
        subject.classifier,
        "forward",
        lambda ids, lengths: (seen.append(int(ids.any(1).sum())), forward(ids, lengths))[1],
    )
    predictions = subject(pa.array(["goal", "bank", None, "goal", "goal", None]))
    assert sum(seen) == 2
    assert predictions.has_text.tolist() == [True, True, False, True, True, False]
    assert (predictions.probabilities[[0, 3, 4]] == predictions.probabilities[0]).all()
    assert np.isnan(predictions.probabilities[[2, 5]]).all()


def test_texts_that_look_the_same_have_the_same_prediction() -> None:
    texts = ["goal bank", "\ufeffgoal bank", "go\u00adal\u200b bank", "ｇｏａｌ　bank"]
    predictions = predictor()(pa.array(texts))
    assert predictions.probabilities == pytest.approx(predictions.probabilities[[0] * 4], rel=1e-6)


@settings(max_examples=40)
@given(_TEXTS, st.integers(1, 5))
def test_a_prediction_depends_on_its_text_alone(rows: list[list[str] | None], size: int) -> None:
    subject = predictor()
    subject.limits = BatchLimits(tokens=20, rows=size)
    together = subject(texts_of(rows))
    for i, row in enumerate(rows):
        alone = subject(texts_of([row]))
        for name, values in vars(alone).items():
            np.testing.assert_allclose(values[0], vars(together)[name][i], atol=1e-6)
    assert together.num_tokens.tolist() == [min(5, len(row or [])) for row in rows]
    assert together.is_truncated.tolist() == [len(row or []) > 5 for row in rows]


@pytest.mark.parametrize("rows", [[], [None], [["goal"], None, ["goal"], ["a", "b"]]])
def test_the_rows_told_while_classifying_sum_to_all(rows: list[list[str] | None]) -> None:
    subject, told = predictor(), [0.0]
    subject.classify(subject.encode(texts_of(rows)), on_rows=told.append)
    some_text = any(row is not None for row in rows)
    assert sum(told) == pytest.approx(len(rows) if some_text else 0)


def test_texts_are_tokenised_in_slices_and_come_out_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    texts = pa.array([f"goal {'a ' * (i % 4)}{i}" for i in range(50)])
    whole = predictor()(texts)
    monkeypatch.setattr(module, "_ROWS_TOKENISED_AT_ONCE", 7)
    sliced = predictor()(texts)
    np.testing.assert_allclose(sliced.probabilities, whole.probabilities, atol=1e-6)
    assert sliced.num_tokens.tolist() == [min(5, 2 + i % 4) for i in range(50)]


def test_a_predictor_has_no_state_between_calls() -> None:
    subject: Predictor = predictor()
    first = subject(pa.array(["goal a", "rain"]))
    subject(pa.array(["bank"] * 30))
    assert (subject(pa.array(["goal a", "rain"])).probabilities == first.probabilities).all()


def partner(token: str, label: int, weight: float) -> LinearModel:
    """A linear model that has something to say of one token alone."""
    features = NgramFeatures(np.zeros(0, np.int32), np.ones(len(TOKENS), np.float32))
    weights = torch.zeros(len(TOKENS), len(LABELS))
    weights[TOKENS.index(token), label] = weight
    return LinearModel(features, weights, torch.zeros(len(LABELS)))


def test_the_linear_partner_adds_its_logits_to_those_of_the_network() -> None:
    alone = predictor()
    tokens = pa.array(TOKENS[2:])
    both = Predictor(replace(model(), linear=partner("rain", 2, 3.0)), device=torch.device("cpu"))
    before, after = alone(tokens).probabilities, both(tokens).probabilities
    rain = TOKENS[2:].index("rain")
    expected = before[rain] * np.exp([0, 0, 3.0])
    np.testing.assert_allclose(after[rain], expected / expected.sum(), rtol=1e-5)
    others = np.arange(len(tokens)) != rain
    np.testing.assert_allclose(after[others], before[others], rtol=1e-6)


def test_rows_that_the_partner_is_sure_of_never_reach_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = replace(model(), linear=partner("rain", 2, 3.0))
    cascade = Cascade(lead=2.0, temperature=1.5, share=0.5)
    without = Predictor(plain, device=torch.device("cpu"))
    subject = Predictor(replace(plain, cascade=cascade), device=torch.device("cpu"))
    seen, told = [0], [0.0]
    forward = subject.classifier.forward
    monkeypatch.setattr(
        subject.classifier,
        "forward",
        lambda ids, lengths: (seen.append(int(ids.any(1).sum())), forward(ids, lengths))[1],
    )
    texts = pa.array(["rain", "goal", None, "rain", "rain a a", "rain rain"])
    predictions = subject.classify(subject.encode(texts), on_rows=told.append)
    assert predictions.by_linear.tolist() == [True, False, False, True, False, True]
    assert sum(seen) == 2
    assert sum(told) == pytest.approx(len(texts))
    assert predictions.num_tokens.tolist() == [1, 1, 0, 1, 3, 2]
    expected = without(texts)
    assert not expected.by_linear.any()
    sure = np.exp([0, 0, 3 / 1.5])
    np.testing.assert_allclose(predictions.probabilities[0], sure / sure.sum(), rtol=1e-6)
    others = ~predictions.by_linear
    np.testing.assert_allclose(
        predictions.probabilities[others], expected.probabilities[others], atol=1e-6
    )


def test_a_network_is_not_called_where_the_partner_answers_every_row() -> None:
    plain = replace(model(), linear=partner("rain", 2, 3.0))
    subject = Predictor(replace(plain, cascade=Cascade(0.0, 1.0, 1.0)), device=torch.device("cpu"))
    predictions = subject(pa.array(["goal", None, "rain"]))
    assert predictions.by_linear.tolist() == [True, False, True]
    assert predictions.label_ids[2] == 2
    assert np.isnan(predictions.probabilities[1]).all()


@pytest.mark.parametrize(
    "sizes",
    [
        {"hidden_dim": 24},
        {"hidden_dim": 33, "embedding_dim": 20},
        {"hidden_dim": 64, "num_layers": 2},
        {"hidden_dim": 24, "cell": "gru", "bidirectional": False},
        {"hidden_dim": 20, "pooling": ("attention", "mean")},
    ],
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_to_the_last_bit_a_prediction_does_not_depend_on_the_texts_beside_it(
    sizes: dict[str, Any], precision: str
) -> None:
    small = model()
    config = ExperimentConfig(
        model=ModelConfig(**{"embedding_dim": 16, **sizes}),
        training=TrainingConfig(precision=precision),  # type: ignore[arg-type]
    )
    classifier = Classifier(config.model, vocab_size=len(TOKENS), num_labels=len(LABELS))
    subject = Predictor(
        replace(small, config=config, classifier=classifier.eval()), device=torch.device("cpu")
    )
    rng = np.random.default_rng(0)
    texts = [" ".join(rng.choice(TOKENS[2:], n)) for n in rng.integers(1, 40, 150)]
    together = subject(pa.array(texts)).probabilities
    for some in (slice(0, 1), slice(3, 5), slice(7, 40), slice(0, 150, 7), slice(149, 150)):
        alone = subject(pa.array(texts[some])).probabilities
        np.testing.assert_array_equal(alone, together[some])
