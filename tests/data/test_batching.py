"""Tests of shards and of the plan of an epoch, as data."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlstm.data.batching import plan_epoch, rows_of_rank
from distlstm.data.labelled import is_validation, merge_counts
from distlstm.data.shards import Shards, write_shard
from distlstm.text.tokenizer import TokenIds

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=211)


def plan(lengths: list[int], epoch: int = 0, seed: int = 0) -> list[np.ndarray]:
    return plan_epoch(
        np.array(lengths), tokens_per_batch=64, rows_per_batch=8, seed=seed, epoch=epoch
    )


@settings(max_examples=50, deadline=None)
@given(LENGTHS)
def test_every_row_is_in_exactly_one_step_within_both_limits(lengths: list[int]) -> None:
    steps = plan(lengths)
    assert sorted(np.concatenate(steps).tolist()) == list(range(len(lengths)))
    for step in steps:
        longest = max(lengths[row] for row in step)
        assert len(step) <= 8
        assert longest * len(step) <= 64 or len(step) == 1


@settings(max_examples=50, deadline=None)
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


def test_little_is_padded() -> None:
    lengths = np.random.default_rng(0).lognormal(3.3, 0.7, 50_000).astype(int) + 1
    steps = plan_epoch(lengths, tokens_per_batch=8192, rows_per_batch=128, seed=0, epoch=0)
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
        write_shard(tmp_path / name, [token_ids(part)] if part else [], [labels])
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
