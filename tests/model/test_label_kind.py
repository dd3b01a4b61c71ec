"""Tests of distlstm.model.label_kind and of the figures of label sets."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as reference

from distlstm.model.batch import Batch
from distlstm.model.label_kind import ONE_LABEL, label_kind
from distlstm.model.label_sets import LabelSets, fit_thresholds
from distlstm.model.set_metrics import SetTotals, set_metrics_of, set_report_of

SEEDS = st.integers(0, 2**32 - 1)


def problem(seed: int, rows: int = 60, labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that have something to do with the truth."""
    rng = np.random.default_rng(seed)
    members = (rng.random((rows, labels)) < rng.random(labels)).astype(np.float32)
    return np.clip(0.35 * members + 0.7 * rng.random((rows, labels)), 0, 1), members


@settings(max_examples=40)
@given(SEEDS)
def test_figures_are_those_of_scikit_learn(seed: int) -> None:
    probabilities, members = problem(seed)
    kind = LabelSets((0.5, 0.4, 0.6, 0.3))
    decided = kind.decided(probabilities)
    found = set_metrics_of(SetTotals.of(probabilities, members, decided))
    seen = (members.sum(0) + decided.sum(0)) > 0
    f1 = reference.f1_score(members, decided, average=None, zero_division=0)
    assert found.accuracy == pytest.approx(reference.accuracy_score(members, decided))
    assert found.macro_f1 == pytest.approx(f1[seen].mean() if seen.any() else 0)
    for average in ("micro", "weighted"):
        wanted = reference.f1_score(members, decided, average=average, zero_division=0)
        assert getattr(found, f"{average}_f1") == pytest.approx(wanted)
    assert found.mcc == pytest.approx(
        reference.matthews_corrcoef(members.ravel(), decided.ravel().astype(np.float32))
    )
    both = np.stack([1 - probabilities.ravel(), probabilities.ravel()], axis=1)
    assert found.log_loss == pytest.approx(
        reference.log_loss(members.ravel(), both, labels=[0, 1]), rel=1e-5
    )


@settings(max_examples=20)
@given(SEEDS, st.integers(0, 60))
def test_sums_over_workers_and_label_ids_that_move_change_nothing(seed: int, cut: int) -> None:
    probabilities, members = problem(seed)
    kind = LabelSets()
    whole = kind.totals(probabilities, np.zeros(60), members)
    parts = kind.zero(4)
    for rows in (slice(0, cut), slice(cut, 60)):
        totals = kind.totals(probabilities[rows], np.zeros(60)[rows], members[rows])
        parts += kind.from_vector(totals.to_vector())
    np.testing.assert_allclose(parts.to_vector(), whole.to_vector())
    moved = set_report_of(whole.renumbered([2, 0, 4, 1], 5), list("abcde"))
    report = set_report_of(whole, list("caeb"))
    assert moved["per_label"].pop("d") == {"precision": 0, "recall": 0, "f1": 0, "support": 0}
    assert moved["per_label"] == report["per_label"]
    assert moved["micro_f1"] == report["micro_f1"]


@settings(max_examples=40)
@given(SEEDS, st.integers(0, 60))
def test_thresholds_have_the_highest_f1_however_many_workers_hold_the_rows(
    seed: int, cut: int
) -> None:
    probabilities, members = problem(seed)
    found = fit_thresholds(probabilities, members)

    def f1(label: int, thresholds: np.ndarray) -> np.ndarray:
        decided = probabilities[:, label, None] >= thresholds
        truth = members[:, label, None] > 0
        right, given, true = (decided & truth).sum(0), decided.sum(0), truth.sum()
        return 2 * right / np.maximum(1, given + true)

    for label, threshold in enumerate(found):
        best = f1(label, np.arange(1, 100) / 100).max()
        assert f1(label, np.array([threshold])) == pytest.approx(best)
    halves = [slice(0, cut), slice(cut, 60)]
    vectors: list[np.ndarray] = []

    def keep(vector: np.ndarray) -> np.ndarray:
        vectors.append(vector)
        return vector

    for rows in halves:
        fit_thresholds(probabilities[rows], members[rows], all_reduce=keep)
    together = fit_thresholds(probabilities[:0], members[:0], all_reduce=lambda _: sum(vectors))
    assert together == found


def test_a_label_that_no_row_has_keeps_one_half() -> None:
    assert fit_thresholds(np.full((9, 2), 0.3), np.zeros((9, 2))) == (0.5, 0.5)
    assert fit_thresholds(np.zeros((0, 2)), np.zeros((0, 2))) == (0.5, 0.5)


def test_a_rows_loss_is_the_mean_binary_cross_entropy() -> None:
    logits, members = torch.randn(5, 3), np.eye(5, 3, dtype=np.float32)
    tokens, lengths = np.arange(2, 7, dtype=np.int32), np.ones(5, np.int64)
    batch = Batch.of_rows(tokens, lengths, targets=members)
    losses = LabelSets().losses(logits, batch, label_smoothing=0).numpy()
    p = LabelSets().probabilities(logits.numpy())
    wanted = -(members * np.log(p) + (1 - members) * np.log(1 - p)).mean(1)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)


def test_probabilities_of_huge_logits_are_0_and_1() -> None:
    found = LabelSets().probabilities(np.array([[-1e6, 0.0, 1e6]], np.float32) / 0.05)
    assert found.tolist() == [[0.0, 0.5, 1.0]]


def test_one_label_decides_for_the_most_probable() -> None:
    assert ONE_LABEL.decided(np.array([[0.2, 0.8], [0.5, 0.5]])).tolist() == [
        [False, True],
        [True, False],
    ]
    with pytest.raises(ValueError, match="'pairs'"):
        label_kind("pairs")
