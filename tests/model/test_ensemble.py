"""Tests of distlstm.model.ensemble: two models' logits in, one calibrated classifier out."""

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from distlstm.model.calibration import softmax
from distlstm.model.ensemble import Calibration, ValidationLogits, calibrate
from distlstm.model.label_kind import ONE_LABEL
from distlstm.model.label_sets import LabelSets
from distlstm.model.metrics import Totals, metrics_of


def rows(num_rows: int = 400, num_labels: int = 3, *, linear: bool = True) -> ValidationLogits:
    """Logits of two models that are right about different rows, both far too sure."""
    rng = np.random.default_rng(0)
    label_ids = rng.integers(0, num_labels, num_rows)
    truth = np.eye(num_labels)[label_ids]
    first, second = (4 * (truth + rng.normal(size=truth.shape)) for _ in range(2))
    return ValidationLogits(
        recurrent=first.astype(np.float32),
        linear=second.astype(np.float32) if linear else None,
        label_ids=label_ids,
        targets=None,
    )


def taken(some: ValidationLogits, rank: slice) -> ValidationLogits:
    return ValidationLogits(
        recurrent=some.recurrent[rank],
        linear=None if some.linear is None else some.linear[rank],
        label_ids=some.label_ids[rank],
        targets=None if some.targets is None else some.targets[rank],
    )


def test_both_models_together_are_better_calibrated_and_better_than_one() -> None:
    both, alone = calibrate(rows(), kind=ONE_LABEL), calibrate(rows(linear=False), kind=ONE_LABEL)
    assert both.metrics.accuracy > alone.metrics.accuracy + 0.05
    assert both.recurrent == alone.metrics == alone.recurrent
    assert both.temperature > 2, "logits that are too sure are divided"
    assert both.linear_weight == pytest.approx(1 / both.temperature, rel=0.3), "they are alike"
    assert alone.linear_weight == 0
    uncalibrated = metrics_of(Totals.of(softmax(rows().recurrent), rows().label_ids))
    assert alone.metrics.ece < uncalibrated.ece / 2


def test_the_metrics_are_those_of_the_weighted_sum_of_the_logits() -> None:
    some, found = rows(), calibrate(rows(), kind=ONE_LABEL)
    assert some.linear is not None
    logits = some.recurrent / found.temperature + found.linear_weight * some.linear
    expected = metrics_of(Totals.of(softmax(logits), some.label_ids))
    assert found.metrics.accuracy == expected.accuracy
    assert found.metrics.log_loss == pytest.approx(expected.log_loss)
    assert sum(found.score_histogram) == len(some.label_ids)


@pytest.mark.parametrize("tolerance", [0.01, 0.2])
def test_a_cascade_changes_at_most_the_labels_that_it_may(tolerance: float) -> None:
    some = rows()
    with_it, without = (
        calibrate(some, kind=ONE_LABEL, cascade_tolerance=share) for share in (tolerance, 0.0)
    )
    assert without.cascade is None
    assert with_it.cascade is not None
    assert with_it.cascade.share > 0
    assert some.linear is not None
    final = with_it.cascade.is_final(with_it.linear_weight * some.linear)
    assert final.mean() == pytest.approx(with_it.cascade.share)
    changed = abs(with_it.metrics.accuracy - without.metrics.accuracy)
    assert changed <= tolerance + 1e-9


def test_label_sets_get_thresholds_and_no_cascade() -> None:
    rng = np.random.default_rng(1)
    members = (rng.random((300, 4)) < 0.3).astype(np.float32)
    logits = (3 * members + rng.normal(size=members.shape)).astype(np.float32)
    some = ValidationLogits(
        recurrent=logits, linear=logits, label_ids=np.zeros(300, np.int64), targets=members
    )
    found = calibrate(some, kind=LabelSets(), cascade_tolerance=0.1)
    assert found.cascade is None
    assert len(found.thresholds) == 4
    assert all(0 < threshold < 1 for threshold in found.thresholds)
    assert found.metrics.micro_f1 > 0.8


def test_two_workers_fit_what_one_fits_to_all_rows() -> None:
    whole = rows()
    halves = [taken(whole, slice(rank, None, 2)) for rank in range(2)]
    expected = calibrate(whole, kind=ONE_LABEL, cascade_tolerance=0.05)
    for found in run_side_by_side(halves):
        assert found.temperature == pytest.approx(expected.temperature, rel=1e-6)
        assert found.linear_weight == pytest.approx(expected.linear_weight, rel=1e-6)
        assert found.cascade is not None
        assert expected.cascade is not None
        assert vars(found.cascade) == pytest.approx(vars(expected.cascade))
        assert found.metrics.accuracy == pytest.approx(expected.metrics.accuracy)
        assert found.score_histogram == expected.score_histogram


def run_side_by_side(parts: list[ValidationLogits]) -> list[Calibration]:
    """Each part in a thread of its own, all-reduced as workers do."""
    barrier, given = threading.Barrier(len(parts)), {}

    def worker(rank: int) -> Calibration:
        def all_reduce(vector: np.ndarray) -> np.ndarray:
            given[rank] = vector
            barrier.wait()
            total = np.sum([given[r] for r in range(len(parts))], axis=0)
            barrier.wait()
            return np.asarray(total)

        return calibrate(parts[rank], kind=ONE_LABEL, cascade_tolerance=0.05, all_reduce=all_reduce)

    with ThreadPoolExecutor(len(parts)) as threads:
        return list(threads.map(worker, range(len(parts))))


def test_a_worker_without_a_row_and_no_rows_at_all_are_taken() -> None:
    found = calibrate(taken(rows(), slice(0, 0)), kind=ONE_LABEL, cascade_tolerance=0.1)
    assert (found.temperature, found.linear_weight, found.cascade) == (1.0, 0.0, None)
    assert found.metrics.num_rows == 0


def rare_rows(num_rows: int = 3_000, *, linear: bool = True) -> tuple[ValidationLogits, np.ndarray]:
    """Rows of which a twentieth has the second label; logits are honest about it."""
    rng = np.random.default_rng(0)
    label_ids = (rng.random(num_rows) < 0.05).astype(np.int64)
    evidence = np.where(label_ids == 1, 1.5, -1.5) + rng.normal(0, 1.5, num_rows)
    odds = evidence * 2 * 1.5 / 1.5**2 + np.log(0.05 / 0.95)
    logits = np.stack([np.zeros(num_rows), odds], 1).astype(np.float32)
    found = ValidationLogits(
        recurrent=logits, linear=logits if linear else None, label_ids=label_ids, targets=None
    )
    return found, np.bincount(label_ids)


@pytest.mark.parametrize("linear", [True, False])
def test_offsets_predict_rare_labels_more_often_as_far_as_macro_f1_rises(*, linear: bool) -> None:
    found, counts = rare_rows(linear=linear)
    plain = calibrate(found, kind=ONE_LABEL, cascade_tolerance=0.001)
    shifted = calibrate(found, kind=ONE_LABEL, cascade_tolerance=0.001, label_counts=counts)
    assert plain.offsets == ()
    assert shifted.offsets[1] > shifted.offsets[0]
    assert sum(shifted.offsets) == pytest.approx(0)
    assert shifted.metrics.macro_f1 > plain.metrics.macro_f1 + 0.02
    assert (shifted.temperature, shifted.linear_weight) == (plain.temperature, plain.linear_weight)
    combined = found.recurrent / shifted.temperature + np.array(shifted.offsets)
    if found.linear is not None:
        combined += shifted.linear_weight * found.linear
    predicted = softmax(combined)
    totals = Totals.of(predicted, found.label_ids)
    assert metrics_of(totals).macro_f1 == pytest.approx(shifted.metrics.macro_f1, abs=0.01)


def test_without_a_gain_and_for_label_sets_there_are_no_offsets() -> None:
    balanced = rows()
    assert calibrate(balanced, kind=ONE_LABEL, label_counts=np.array([5, 5, 5])).offsets == ()
    members = (softmax(balanced.recurrent) > 0.3).astype(np.float32)
    sets = ValidationLogits(
        recurrent=balanced.recurrent, linear=None, label_ids=balanced.label_ids, targets=members
    )
    assert calibrate(sets, kind=LabelSets(), label_counts=np.array([9, 5, 1])).offsets == ()
