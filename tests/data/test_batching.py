"""Tests of shards and of the plan of an epoch, as data."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlstm.config import TrainingConfig
from distlstm.data.batching import (
    BatchLimits,
    cut_by_length,
    plan_epoch,
    rows_of_rank,
    step_limits,
)
from distlstm.data.labelled import is_validation, merge_counts
from distlstm.data.shards import Shards, write_shard
from distlstm.storage import LocalStorage
from distlstm.text.tokenizer import TokenIds

LIMITS = BatchLimits(tokens=64, rows=8)
LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=211)


def plan(lengths: list[int], epoch: int = 0, seed: int = 0) -> list[np.ndarray]:
    return plan_epoch(np.array(lengths), LIMITS, seed=seed, epoch=epoch)


@settings(max_examples=50)
@given(LENGTHS)
def test_every_row_is_in_exactly_one_step_within_both_limits(lengths: list[int]) -> None:
    steps = plan(lengths)
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(lengths)))
    for step in steps:
        longest = max(lengths[row] for row in step)
        assert len(step) <= 8
        assert longest * len(step) <= 64 or len(step) == 1


@settings(max_examples=50)
@given(LENGTHS, st.integers(1, 7))
def test_the_ranks_together_weigh_each_row_of_a_step_the_same(
    lengths: list[int], world_size: int
) -> None:
    for step in plan(lengths):
        weight = dict.fromkeys(step.tolist(), 0.0)
        for rank in range(world_size):
            rows, weights = rows_of_rank(step, rank=rank, world_size=world_size)
            assert len(rows) == len(weights) >= 1
            for row, share in zip(rows.tolist(), weights.tolist(), strict=True):
                weight[row] += share / world_size
        assert np.allclose(list(weight.values()), 1 / len(step))


def test_the_same_seed_gives_the_same_plan_and_another_epoch_another() -> None:
    lengths = list(range(1, 200))
    first, again, other = plan(lengths), plan(lengths), plan(lengths, epoch=1)
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(np.concatenate(first), np.concatenate(other))


@pytest.mark.parametrize(
    ("num_rows", "rows", "tokens"),
    [
        (1, 16, 8_192),
        (1_600, 16, 8_192),
        (4_900, 49, 8_192),
        (12_800, 128, 8_192),
        (257_999, 128, 8_192),
        (400_000, 200, 12_800),
        (10**9, 256, 16_384),
    ],
)
def test_a_small_corpus_is_learnt_in_small_steps_and_a_large_one_in_large_ones(
    num_rows: int, rows: int, tokens: int
) -> None:
    assert step_limits(TrainingConfig(), num_rows) == BatchLimits(rows=rows, tokens=tokens)


def test_limits_of_a_step_that_are_configured_hold() -> None:
    config = TrainingConfig(tokens_per_batch=1_000, rows_per_batch=5)
    assert step_limits(config, 10**9) == BatchLimits(tokens=1_000, rows=5)
    assert step_limits(TrainingConfig(rows_per_batch=512), 100).tokens == 32_768


def test_little_is_padded() -> None:
    lengths = np.random.default_rng(0).lognormal(3.3, 0.7, 50_000).astype(int) + 1
    steps = plan_epoch(lengths, BatchLimits(tokens=8_192, rows=128), seed=0, epoch=0)
    padded = sum(int(lengths[step].max()) * len(step) for step in steps)
    assert padded / lengths.sum() - 1 < 0.08


def token_ids(rows: list[list[int]]) -> TokenIds:
    lengths = [len(row) for row in rows]
    return TokenIds(
        values=np.array([t for row in rows for t in row], np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        truncated=np.zeros(len(rows), bool),
    )


def test_rows_of_several_shards_are_taken_as_if_they_were_one(tmp_path: Path) -> None:
    rows = [[i] * (1 + i % 4) for i in range(10)]
    for name, part in (("a", rows[:4]), ("b", []), ("c", rows[4:])):
        labels = np.array([row[0] for row in part], np.int32)
        write_shard(LocalStorage(tmp_path), name, [token_ids(part)] if part else [], [labels])
    shards = Shards([tmp_path / name for name in "abc"])
    wanted = np.array([9, 0, 4, 3, 3])
    taken = shards.take(wanted)
    assert len(shards) == 10
    assert taken.token_ids.tolist() == [t for i in wanted for t in rows[i]]
    assert taken.label_ids.tolist() == wanted.tolist()


def test_a_text_and_its_duplicates_are_on_the_same_side_of_the_split() -> None:
    texts = pa.array([f"text {i % 500}" for i in range(2000)])
    held_out = is_validation(texts, 0.2)
    assert (held_out.reshape(4, 500) == held_out[:500]).all()
    assert 0.15 < held_out.mean() < 0.25
    assert not is_validation(texts, 0.0).any()


@pytest.mark.parametrize("cut", [0, 1, 3, 5])
def test_counts_may_be_merged_in_any_grouping(cut: int) -> None:
    table = pa.table(
        {"kind": ["t", "t", "l", "t", "l"], "key": list("abaab"), "count": [1, 2, 3, 4, 5]}
    )
    parts = [merge_counts(table.slice(0, cut)), merge_counts(table.slice(cut))]
    merged = merge_counts(pa.concat_tables(parts)).sort_by(
        [("kind", "ascending"), ("key", "ascending")]
    )
    assert merged["count"].to_pylist() == [3, 5, 5, 2]


@pytest.mark.parametrize("num_rows", [0, 1, 2, 7, 400, 401, 997])
@pytest.mark.parametrize("epoch", [0, 5])
def test_however_many_rows_there_are_each_is_read_once_an_epoch(num_rows: int, epoch: int) -> None:
    lengths = np.random.default_rng(num_rows).integers(0, 40, num_rows)
    steps = plan_epoch(lengths, LIMITS, seed=3, epoch=epoch)
    assert all(len(step) for step in steps)
    assert sorted(row for step in steps for row in step.tolist()) == list(range(num_rows))


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_a_budget_holds_however_large_its_products_are(dtype: type) -> None:
    lengths: np.ndarray = np.full(3000, 2_000_000, dtype)
    steps = plan_epoch(lengths, BatchLimits(tokens=2**32, rows=3000), seed=0, epoch=0)
    assert max(map(len, steps)) == 2**32 // 2_000_000


def test_rows_longer_than_the_budget_are_steps_of_their_own() -> None:
    steps = plan([100, 3, 200, 3])
    assert sorted(sorted(step.tolist()) for step in steps) == [[0], [1, 3], [2]]


def test_rows_without_tokens_fill_a_step_by_their_number() -> None:
    assert sorted(map(len, plan([0] * 20))) == [4, 8, 8]


@settings(max_examples=30)
@given(LENGTHS, st.integers(0, 2**31 - 1), st.integers(0, 9))
def test_a_plan_depends_on_lengths_seed_and_epoch_alone(
    lengths: list[int], seed: int, epoch: int
) -> None:
    np.random.default_rng(0).random()
    first, again = plan(lengths, epoch, seed), plan(lengths, epoch, seed)
    assert [step.tolist() for step in first] == [step.tolist() for step in again]


def test_every_seed_and_every_epoch_has_an_order_of_its_own() -> None:
    orders = {
        tuple(np.concatenate(plan([5] * 200, epoch, seed)).tolist())
        for seed in range(4)
        for epoch in range(4)
    }
    assert len(orders) == 16


def test_steps_do_not_come_sorted_by_length() -> None:
    lengths = np.random.default_rng(0).integers(1, 50, 2000)
    longest = [int(lengths[step].max()) for step in plan(lengths.tolist())]
    assert abs(np.corrcoef(longest, np.arange(len(longest)))[0, 1]) < 0.2


@settings(max_examples=50)
@given(LENGTHS)
def test_cutting_sorts_the_rows_it_is_given_and_only_those(lengths: list[int]) -> None:
    rows = np.arange(len(lengths))[::2]
    cut = list(cut_by_length(rows, np.array(lengths), LIMITS))
    in_order = [row for step in cut for row in step.tolist()]
    assert sorted(in_order) == rows.tolist()
    assert [lengths[row] for row in in_order] == sorted(lengths[row] for row in rows)


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5, 7, 13, 64])
@pytest.mark.parametrize("world_size", [1, 2, 3, 5, 8])
def test_the_mean_over_the_ranks_is_the_mean_over_the_step(num_rows: int, world_size: int) -> None:
    losses = np.random.default_rng(1).random(100)
    step = np.random.default_rng(2).permutation(100)[:num_rows]
    shares = [rows_of_rank(step, rank=rank, world_size=world_size) for rank in range(world_size)]
    sums = [float((losses[rows] * weights).sum()) for rows, weights in shares]
    assert np.isclose(np.mean(sums), losses[step].mean(), atol=1e-6)
    sizes = [len(rows) for rows, _ in shares]
    assert min(sizes) >= 1
    assert max(sizes) - min(sizes) <= 1
    assert {weights.dtype for _, weights in shares} == {np.dtype(np.float32)}


def test_a_rank_without_a_row_of_its_own_counts_for_nothing() -> None:
    rows, weights = rows_of_rank(np.array([42]), rank=3, world_size=4)
    assert (rows.tolist(), weights.tolist()) == ([42], [0.0])
