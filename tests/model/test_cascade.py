"""Tests of distlstm.model.cascade."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from distlstm.model.calibration import fit_weights, softmax
from distlstm.model.cascade import Cascade, fit_cascade, leads

TOLERANCES = [0.005, 0.02, 0.1]


def problem(num_rows: int = 500, num_labels: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits of a partner, probabilities of a better whole, and the truth."""
    rng = np.random.default_rng(7)
    truth = np.eye(num_labels)[rng.integers(0, num_labels, num_rows)]
    linear = truth * 2 + rng.normal(size=truth.shape)
    return linear, softmax(linear + 3 * truth + rng.normal(size=truth.shape)), truth


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_the_lead_is_the_least_that_changes_few_enough_labels(tolerance: float) -> None:
    linear, together, truth = problem()
    cascade = fit_cascade(linear, together, truth, tolerance=tolerance)
    assert cascade is not None

    def changed(lead: float) -> float:
        delivered = Cascade(lead, 1.0, 0.0).applied(linear, together)
        return float((delivered.argmax(1) != together.argmax(1)).mean())

    assert changed(cascade.lead) <= tolerance < changed(cascade.lead - 0.01)
    final = cascade.is_final(linear)
    assert cascade.share == final.mean()
    alone = fit_weights(linear[None, final], truth[final])[0]
    assert cascade.temperature == pytest.approx(1 / alone)


def test_rows_below_the_lead_keep_the_answer_of_both() -> None:
    linear = np.array([[3.0, 0.0], [0.0, 0.5], [0.0, 2.0]])
    together = np.array([[0.2, 0.8], [0.6, 0.4], [0.3, 0.7]])
    cascade = Cascade(lead=2.0, temperature=2.0, share=0.5)
    assert cascade.is_final(linear).tolist() == [True, False, True]
    delivered = cascade.applied(linear, together)
    np.testing.assert_allclose(
        delivered, [softmax(linear[:1] / 2)[0], [0.6, 0.4], [0.2689, 0.7311]], atol=1e-4
    )


def test_the_lead_of_a_row_is_over_the_second_label() -> None:
    assert leads(np.array([[1.0, 4.0, 2.5], [2.0, 2.0, 0.0]])).tolist() == [1.5, 0.0]
    assert leads(np.array([[1.0]])).tolist() == [np.inf]


@pytest.mark.parametrize("tolerance", TOLERANCES)
def test_a_cascade_fitted_over_workers_is_that_of_all_rows(tolerance: float) -> None:
    everything = problem(301)
    met, sums = threading.Barrier(2), [np.zeros(0), np.zeros(0)]

    def work(rank: int) -> Cascade | None:
        def all_reduce(vector: np.ndarray) -> np.ndarray:
            sums[rank] = vector
            met.wait()
            total = sums[0] + sums[1]
            met.wait()
            return total

        linear, together, truth = (part[rank::2] for part in everything)
        return fit_cascade(linear, together, truth, tolerance=tolerance, all_reduce=all_reduce)

    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(work, (0, 1)))
    expected = fit_cascade(*everything, tolerance=tolerance)
    assert found[0] is not None
    assert expected is not None
    assert found[0] == found[1]
    assert (found[0].lead, found[0].share) == (expected.lead, expected.share)
    assert found[0].temperature == pytest.approx(expected.temperature, rel=1e-4)


def test_a_partner_that_is_never_surely_right_has_no_cascade() -> None:
    linear, together, truth = problem()
    assert fit_cascade(linear, together[:, ::-1], truth, tolerance=0.001) is None
    assert fit_cascade(linear[:0], together[:0], truth[:0], tolerance=0.5) is None
