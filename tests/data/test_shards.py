"""Tests of distlstm.data.shards: what test_batching.py leaves open."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlstm.data.shards import Shards, write_shard
from distlstm.storage import LocalStorage
from distlstm.text.tokenizer import TokenIds

Row = tuple[list[int], int]
ROW = st.tuples(st.lists(st.integers(0, 99), max_size=5), st.integers(0, 3))
SHARDS = st.lists(st.lists(st.lists(ROW, max_size=4), max_size=3), max_size=4)


def token_ids(rows: list[Row]) -> TokenIds:
    return TokenIds(
        values=np.array([token for tokens, _ in rows for token in tokens], np.int32),
        offsets=np.cumsum([0, *(len(tokens) for tokens, _ in rows)], dtype=np.int64),
        truncated=np.zeros(len(rows), bool),
    )


def write(path: Path, batches: list[list[Row]]) -> Path:
    labels = [np.array([label for _, label in rows], np.int32) for rows in batches]
    write_shard(LocalStorage(path.parent), path.name, [token_ids(rows) for rows in batches], labels)
    return path


def write_all(directory: Path, shards: list[list[list[Row]]]) -> Shards:
    return Shards([write(directory / f"{i}.shard", b) for i, b in enumerate(shards)])


@settings(max_examples=40)
@given(SHARDS, st.data())
def test_taking_rows_from_many_shards_equals_indexing_a_list(
    tmp_path_factory: pytest.TempPathFactory, written: list[list[list[Row]]], data: st.DataObject
) -> None:
    shards = write_all(tmp_path_factory.mktemp("shards"), written)
    rows = [row for batches in written for batch in batches for row in batch]
    assert len(shards) == len(rows)
    assert shards.lengths.tolist() == [len(tokens) for tokens, _ in rows]
    assert shards.label_ids.tolist() == [label for _, label in rows]
    indices = st.lists(st.integers(0, len(rows) - 1), max_size=12) if rows else st.just([])
    wanted = data.draw(indices)
    taken = shards.take(np.array(wanted, np.int64))
    assert taken.token_ids.tolist() == [token for i in wanted for token in rows[i][0]]
    assert taken.lengths.tolist() == [len(rows[i][0]) for i in wanted]
    assert taken.label_ids.tolist() == [rows[i][1] for i in wanted]
    dtypes = [column.dtype.name for column in (taken.token_ids, taken.lengths, taken.label_ids)]
    assert dtypes == ["int32", "int64", "int64"]


@pytest.mark.parametrize("num_shards", [0, 1, 3])
def test_shards_without_rows_are_no_rows(tmp_path: Path, num_shards: int) -> None:
    shards = write_all(tmp_path, [[]] * num_shards)
    assert len(shards) == 0
    taken = shards.take(np.zeros(0, np.int64))
    assert (len(taken.token_ids), len(taken.lengths), len(taken.label_ids)) == (0, 0, 0)


@pytest.mark.parametrize("empty", [[0], [1], [2], [0, 1], [1, 2], [0, 2]])
def test_an_empty_shard_shifts_no_row(tmp_path: Path, empty: list[int]) -> None:
    written = [[] if i in empty else [[([i, i], i), ([i], i)]] for i in range(3)]
    shards = write_all(tmp_path, written)
    taken = shards.take(np.arange(len(shards))[::-1])
    full = [i for i in (2, 1, 0) if i not in empty]
    assert taken.token_ids.tolist() == [i for i in full for _ in range(3)]
    assert taken.lengths.tolist() == [1, 2] * len(full)


def test_batches_that_are_views_are_written_as_their_own_rows(tmp_path: Path) -> None:
    rows: list[Row] = [([1, 2], 0), ([], 1), ([3], 2), ([4, 5, 6], 3)]
    kept = np.array([1, 3])
    labels = np.array([label for _, label in rows], np.int32)
    write_shard(LocalStorage(tmp_path), "a", [token_ids(rows).take(kept)], [labels[kept]])
    taken = Shards([tmp_path / "a"]).take(np.array([1, 0]))
    assert taken.token_ids.tolist() == [4, 5, 6]
    assert taken.label_ids.tolist() == [3, 1]


def test_a_shard_replaces_an_earlier_one_whole_and_alone(tmp_path: Path) -> None:
    write(tmp_path / "a", [[([1], 1)]])
    write(tmp_path / "a", [[([2], 2)], [([3], 3)]])
    assert Shards([tmp_path / "a"]).label_ids.tolist() == [2, 3]
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@settings(max_examples=30)
@given(st.lists(st.tuples(st.booleans(), st.lists(ROW, max_size=4)), max_size=5), st.data())
def test_targets_and_weights_are_taken_from_the_shards_that_have_them(
    tmp_path_factory: pytest.TempPathFactory,
    written: list[tuple[bool, list[Row]]],
    data: st.DataObject,
) -> None:
    directory, rng = tmp_path_factory.mktemp("shards"), np.random.default_rng(0)
    paths, targets, weights = [], [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)]
    for i, (soft, rows) in enumerate(written):
        labels = np.array([label for _, label in rows], np.int32)
        given_targets, given_weights = rng.random((len(rows), 4), np.float32), np.zeros(len(rows))
        write_shard(
            LocalStorage(directory),
            str(i),
            [token_ids(rows)],
            [labels],
            weights=[given_weights] if soft else [],
            targets=[given_targets] if soft else [],
        )
        paths.append(directory / str(i))
        targets.append(given_targets if soft else np.eye(4, dtype=np.float32)[labels])
        weights.append(given_weights if soft else np.ones(len(rows)))
    shards, all_targets = Shards(paths), np.concatenate(targets)
    assert shards.weights.tolist() == np.concatenate(weights).tolist()
    indices = st.lists(st.integers(0, len(shards) - 1), max_size=9) if len(shards) else st.just([])
    wanted = np.array(data.draw(indices), np.int64)
    taken = shards.take(wanted).targets
    if any(soft for soft, _ in written):
        assert taken is not None
        assert taken.tolist() == all_targets[wanted].tolist()
    else:
        assert taken is None
