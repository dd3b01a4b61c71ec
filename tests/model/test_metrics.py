"""Tests of metrics and calibration against scikit-learn and plain loops."""

import numpy as np
import pytest
from sklearn import metrics as sk

from distlstm.model.calibration import fit_temperature, softmax
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
        return metrics_of(Totals.of(softmax(logits, temperature), truth)).log_loss

    best = fit_temperature(logits, truth)
    assert loss(best) <= min(loss(t) for t in np.geomspace(0.06, 19, 400)) + 1e-9
    assert best > 1.5
    assert (softmax(logits, best).argmax(1) == logits.argmax(1)).all()


def test_without_rows_the_temperature_is_one() -> None:
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, np.int64)) == 1.0


def test_a_temperature_makes_scores_as_sure_as_the_distributions_were() -> None:
    teacher = np.random.default_rng(0).dirichlet(np.ones(4), 500)
    logits, label_ids = 2.5 * np.log(teacher), teacher.argmax(1)
    assert fit_temperature(logits, label_ids, targets=teacher) == pytest.approx(2.5, rel=1e-4)
