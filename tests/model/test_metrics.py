"""Tests of metrics and calibration against scikit-learn and plain loops."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sklearn import metrics as sk

from distlstm.model.calibration import binary_cross_entropy, fit_weights, sigmoid, softmax
from distlstm.model.metrics import Totals, label_metrics, metrics_of, report_of


def problem(num_labels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(400, num_labels)) * 2
    labels = np.where(rng.random(400) < 0.6, logits.argmax(1), rng.integers(0, num_labels, 400))
    if num_labels > 3:
        labels[labels == 2] = 0  # a label that never occurs
        logits[:, 3] = -20  # and one that is never predicted
    return logits, labels


@pytest.mark.parametrize("num_labels", [2, 3, 7])
def test_all_figures_are_scikit_learns(num_labels: int) -> None:
    logits, truth = problem(num_labels)
    probabilities = softmax(logits)
    predicted = probabilities.argmax(1)
    found = metrics_of(Totals.of(probabilities, truth))
    expected = {
        "accuracy": sk.accuracy_score(truth, predicted),
        "macro_f1": sk.f1_score(truth, predicted, average="macro", zero_division=0),
        "micro_f1": sk.f1_score(truth, predicted, average="micro"),
        "weighted_f1": sk.f1_score(truth, predicted, average="weighted", zero_division=0),
        "macro_recall": sk.recall_score(truth, predicted, average="macro", zero_division=0),
        "mcc": sk.matthews_corrcoef(truth, predicted),
        "log_loss": sk.log_loss(truth, probabilities, labels=range(num_labels)),
    }
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-9), name


def test_figures_by_label_and_the_confusion_matrix_are_scikit_learns() -> None:
    logits, truth = problem(5)
    predicted = logits.argmax(1)
    report = report_of(Totals.of(softmax(logits), truth), list("abcde"))
    matrix = sk.confusion_matrix(truth, predicted, labels=range(5))
    assert report["confusion_matrix"] == matrix.tolist()
    columns = sk.precision_recall_fscore_support(truth, predicted, labels=range(5), zero_division=0)
    for i, label in enumerate("abcde"):
        found = report["per_label"][label]
        expected = [column[i] for column in columns]
        assert [found[n] for n in ("precision", "recall", "f1", "support")] == pytest.approx(
            expected
        )


def test_totals_of_parts_add_up_to_the_whole() -> None:
    logits, truth = problem(4)
    whole = Totals.of(softmax(logits), truth)
    parts = Totals.of(softmax(logits[:90]), truth[:90]) + Totals.of(
        softmax(logits[90:]), truth[90:]
    )
    added = metrics_of(Totals.from_vector(parts.to_vector()))
    assert vars(added) == pytest.approx(vars(metrics_of(whole)))


def test_totals_may_be_renumbered_among_more_labels() -> None:
    logits, truth = problem(3)
    moved = Totals.of(softmax(logits), truth).renumbered([4, 0, 2], 5)
    by_label = label_metrics(Totals.of(softmax(logits), truth))
    assert label_metrics(moved).f1[[4, 0, 2]] == pytest.approx(by_label.f1)


def test_the_calibration_error_is_that_of_a_plain_loop() -> None:
    logits, truth = problem(3)
    probabilities = softmax(logits)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == truth
    expected = 0.0
    for i in range(15):
        inside = (confidence >= i / 15) & ((confidence < (i + 1) / 15) | (i == 14))
        if inside.any():
            expected += abs(confidence[inside].mean() - right[inside].mean()) * inside.mean()
    assert metrics_of(Totals.of(probabilities, truth)).ece == pytest.approx(expected)


def test_the_temperature_has_the_least_log_loss_and_changes_no_prediction() -> None:
    logits, truth = problem(3)
    logits = logits * 3

    def loss(temperature: float) -> float:
        return metrics_of(Totals.of(softmax(logits / temperature), truth)).log_loss

    best = 1 / fit_weights(logits[None], np.eye(3)[truth])[0]
    assert loss(best) <= min(loss(t) for t in np.geomspace(0.06, 19, 400)) + 1e-9
    assert best > 1.5
    assert (softmax(logits / best).argmax(1) == logits.argmax(1)).all()


def test_two_models_are_weighed_so_that_their_sum_has_the_least_log_loss() -> None:
    one, truth = problem(3)
    two = np.eye(3)[truth] + np.random.default_rng(5).normal(size=one.shape)
    both = np.stack([one, two])

    def loss(weights: np.ndarray) -> float:
        return metrics_of(Totals.of(softmax(np.tensordot(weights, both, 1)), truth)).log_loss

    best = fit_weights(both, np.eye(3)[truth])
    near = [best + np.array([a, b]) for a in (-0.02, 0, 0.02) for b in (-0.02, 0, 0.02)]
    assert loss(best) <= min(map(loss, near)) + 1e-9
    assert loss(best) < min(
        loss(np.array([fit_weights(both[:1], np.eye(3)[truth])[0], 0])), loss(np.ones(2))
    )


def test_a_partner_that_is_always_wrong_gets_no_say() -> None:
    one, truth = problem(3)
    weights = fit_weights(np.stack([one, -5 * np.eye(3)[truth]]), np.eye(3)[truth])
    assert weights[1] == 0
    np.testing.assert_allclose(weights[0], fit_weights(one[None], np.eye(3)[truth])[0], rtol=1e-6)


def test_weights_fitted_over_workers_are_those_of_all_rows() -> None:
    one, truth = problem(3)
    both = np.stack([one, one[:, ::-1]])
    halves = [(both[:, i::2], np.eye(3)[truth[i::2]]) for i in (0, 1)]
    met, sums = threading.Barrier(2), [np.zeros(0), np.zeros(0)]

    def work(rank: int) -> np.ndarray:
        def all_reduce(vector: np.ndarray) -> np.ndarray:
            sums[rank] = vector
            met.wait()
            total = sums[0] + sums[1]
            met.wait()
            return total

        return fit_weights(*halves[rank], all_reduce=all_reduce)

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(work, (0, 1)))
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_allclose(found[0], fit_weights(both, np.eye(3)[truth]), rtol=1e-4, atol=1e-6)


def test_without_rows_the_temperature_is_one() -> None:
    assert fit_weights(np.zeros((2, 0, 3)), np.zeros((0, 3))).tolist() == [1.0, 0.0]


def test_a_temperature_makes_scores_as_sure_as_the_distributions_were() -> None:
    teacher = np.random.default_rng(0).dirichlet(np.ones(4), 500)
    logits = 2.5 * np.log(teacher)
    assert 1 / fit_weights(logits[None], teacher)[0] == pytest.approx(2.5, rel=1e-4)


def test_labels_that_are_there_by_themselves_are_weighed_by_binary_cross_entropy() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(2000, 4))
    members = (rng.random((2000, 4)) < sigmoid(scores)).astype(float)
    weights = fit_weights(np.stack([3 * scores, scores]), members, loss_at=binary_cross_entropy)
    assert 3 * weights[0] + weights[1] == pytest.approx(1, abs=0.1)
