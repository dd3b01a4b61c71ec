"""Tests of distlstm.text.tokenizer."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlstm.config import TextConfig
from distlstm.text.tokenizer import TokenIds, Tokenizer, run_indices, truncate
from distlstm.text.vocabulary import UNKNOWN_ID, Vocabulary

ROWS = st.lists(st.none() | st.lists(st.sampled_from("abc"), max_size=6), max_size=10)


def tokenizer(max_tokens: int = 3) -> Tokenizer:
    counts = pa.table({"token": ["a", "b"], "count": [9, 8]})
    config = TextConfig(max_tokens=max_tokens)
    return Tokenizer(config, Vocabulary.from_counts(counts, config))


def as_lists(ids: TokenIds) -> list[list[int]]:
    starts, stops = ids.offsets[:-1].tolist(), ids.offsets[1:].tolist()
    return [ids.values[a:b].tolist() for a, b in zip(starts, stops, strict=True)]


def by_hand(row: list[str] | None, max_tokens: int) -> list[int]:
    return [{"a": 2, "b": 3}.get(token, UNKNOWN_ID) for token in (row or [])[:max_tokens]]


@settings(max_examples=60)
@given(ROWS, st.integers(1, 7), st.data())
def test_any_slice_of_ragged_rows_is_encoded_as_row_by_row(
    rows: list[list[str] | None], max_tokens: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(rows)))
    texts = [None if not row else " ".join(row) for row in rows]
    encoded = tokenizer(max_tokens).encode(pa.array(texts, pa.string()).slice(start))
    assert as_lists(encoded) == [by_hand(row, max_tokens) for row in rows[start:]]
    assert encoded.truncated.tolist() == [len(row or []) > max_tokens for row in rows[start:]]
    assert encoded.lengths.tolist() == [min(len(row or []), max_tokens) for row in rows[start:]]
    assert (encoded.values.dtype.name, encoded.offsets.dtype.name) == ("int32", "int64")


@settings(max_examples=60)
@given(ROWS, st.data())
def test_filtering_keeps_the_chosen_rows_in_order(
    rows: list[list[str] | None], data: st.DataObject
) -> None:
    keep = data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows)))
    again = data.draw(st.lists(st.booleans(), min_size=sum(keep), max_size=sum(keep)))
    texts = pa.array([None if not row else " ".join(row) for row in rows], pa.string())
    kept = tokenizer().encode(texts).take(np.array(keep, bool))
    expected = [by_hand(row, 3) for row, chosen in zip(rows, keep, strict=True) if chosen]
    assert as_lists(kept) == expected
    twice = kept.take(np.array(again, bool))
    assert as_lists(twice) == [e for e, chosen in zip(expected, again, strict=True) if chosen]
    assert len(twice.truncated) == sum(again)


@settings(max_examples=60)
@given(ROWS, st.integers(1, 4), st.data())
def test_truncating_a_slice_of_lists_equals_slicing_each_list(
    rows: list[list[str] | None], max_tokens: int, data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(rows)))
    column = pa.array(rows, pa.list_(pa.string())).slice(start)
    cut, shortened = truncate(column, max_tokens)
    assert cut.to_pylist() == [(row or [])[:max_tokens] for row in rows[start:]]
    assert shortened.tolist() == [len(row or []) > max_tokens for row in rows[start:]]


def test_tokens_hidden_under_a_null_are_not_read() -> None:
    values, mask = pa.array(["a", "b", "c"]), pa.array([False, True, False])
    column = pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), values, mask=mask)
    assert truncate(column, 5)[0].to_pylist() == [["a"], [], ["c"]]


@pytest.mark.parametrize("text", ["a" + " " * 1000 + "b a b", "x" * 1000 + " a b a"])
def test_a_text_of_which_the_end_was_not_read_counts_as_truncated(text: str) -> None:
    encoded = tokenizer(3).encode(pa.array(["a", None, text, "字" * 3]))
    assert encoded.truncated.tolist() == [False, False, True, False]


def test_a_text_of_exactly_max_tokens_is_not_truncated() -> None:
    encoded = tokenizer(2).encode(pa.array(["a b", "a b a"]))
    assert encoded.truncated.tolist() == [False, True]
    assert encoded.lengths.tolist() == [2, 2]


@pytest.mark.parametrize("lengths", [[], [0], [0, 0], [3], [2, 0, 1], [0, 5, 0]])
def test_runs_follow_one_another(lengths: list[int]) -> None:
    starts = [100 * i for i in range(len(lengths))]
    expected = [s + k for s, n in zip(starts, lengths, strict=True) for k in range(n)]
    found = run_indices(np.array(starts, np.int64), np.array(lengths, np.int64))
    assert found.tolist() == expected
