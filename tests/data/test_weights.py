"""Tests of distlstm.data.weights, and of the weights that a column gives."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_sample_weight

from distlstm.data.batching import BatchLimits, plan_epoch, rows_of_rank
from distlstm.data.files import find_files
from distlstm.data.labelled import Columns, read_labelled
from distlstm.data.units import Unit
from distlstm.data.weights import row_weights
from distlstm.errors import UserError
from distlstm.text.columns import read_weights

LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(np.array)


def ones(labels: np.ndarray) -> np.ndarray:
    return np.ones(len(labels), np.float32)


@given(LABELS)
def test_balanced_weights_are_those_of_scikit_learn(labels: np.ndarray) -> None:
    weights = row_weights(labels, ones(labels), balanced=True)
    np.testing.assert_allclose(weights, compute_sample_weight("balanced", labels), rtol=1e-5)


@given(LABELS, st.booleans(), st.floats(1e-6, 1e6))
def test_weights_are_1_on_average_whatever_their_scale(
    labels: np.ndarray, balanced: bool, scale: float
) -> None:
    given_weights = np.linspace(0.5, 3, len(labels))
    weights = row_weights(labels, given_weights, balanced=balanced)
    scaled = row_weights(labels, scale * given_weights, balanced=balanced)
    assert weights.mean() == pytest.approx(1, rel=1e-4)
    np.testing.assert_allclose(weights, scaled, rtol=1e-5)


def test_without_weights_every_row_counts_exactly_1() -> None:
    labels = np.array([0, 0, 1, 2, 2, 2, 2])
    assert row_weights(labels, ones(labels), balanced=False).tolist() == [1.0] * 7


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_the_ranks_weighted_steps_add_up_to_the_weighted_mean(world_size: int) -> None:
    rng = np.random.default_rng(0)
    lengths, losses = rng.integers(1, 50, 203), rng.random(203)
    weights = row_weights(rng.integers(0, 3, 203), rng.random(203), balanced=True)
    plan = plan_epoch(lengths, BatchLimits(tokens=400, rows=16), seed=0, epoch=0)
    for step in plan:
        sums = []
        for rank in range(world_size):
            rows, shares = rows_of_rank(step, rank=rank, world_size=world_size)
            sums.append((losses[rows] * shares * weights[rows]).sum())
        assert np.mean(sums) == pytest.approx((losses * weights)[step].mean(), rel=1e-5)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([2.5, None, -1.0, float("nan"), float("inf"), 0.0, 1e300]),
        pa.array(["2.5", " ", "-1", "nan", "inf", "0", "1e300"]),
        pa.array(["2.5", None, "-1", "nan", "inf", "0", "1e300"]).dictionary_encode(),
    ],
)
def test_weights_are_numbers_or_texts_of_numbers(column: pa.Array) -> None:
    read = read_weights(column)
    infinite = "a weight that is not finite"
    assert read.faults.to_pylist() == [
        *(None, "no weight", "a negative weight", infinite, infinite, None, infinite)
    ]
    usable = read.faults.is_null().to_numpy(zero_copy_only=False)
    assert read.weights[usable].tolist() == [2.5, 0.0]


@pytest.mark.parametrize("values", [["heavy"], [True], [[1.0]], [{"a": 1}]])
def test_what_is_no_number_is_no_weight(values: list[object]) -> None:
    with pytest.raises(UserError, match="a weight is a number"):
        read_weights(pa.array(values))


def test_rows_without_a_usable_weight_are_dropped_for_one_reason_each(tmp_path: Path) -> None:
    rows = {
        "text": [None, "a", "b", "c", "d", "e"],
        "label": ["x", None, "x", "y", "y", "y"],
        "w": [None, None, -1.0, None, 2.0, float("nan")],
    }
    pq.write_table(pa.table(rows), tmp_path / "a.parquet")
    (file,) = find_files([str(tmp_path / "a.parquet")])
    (read,) = read_labelled(Unit(file=file), Columns(weight="w"))
    assert (read.texts.to_pylist(), read.weights.tolist()) == (["d"], [2.0])
    assert read.dropped == {
        "null text": 1,
        "no label": 1,
        "a negative weight": 1,
        "no weight": 1,
        "a weight that is not finite": 1,
    }
