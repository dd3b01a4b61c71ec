"""Tests of distlstm.stages.prediction.part_content."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from distlstm.model.label_kind import ONE_LABEL
from distlstm.stages.prediction.part_content import Tally, prediction_columns
from distlstm.stages.prediction.predictor import Predictions
from distlstm.text.columns import read_texts

NAMES = pa.array(["sport", "money", "天气"])
ROWS = [(0.25, 0.5, 0.25), None, (0.9, 0.05, 0.05), (0.125, 0.0, 0.875)]


def predictions(rows: list[tuple[float, ...] | None]) -> Predictions:
    """Of rows with three tokens, one of them unknown; those without text are None."""
    probabilities = [(np.nan,) * 3 if row is None else row for row in rows]
    num_tokens = np.array([0 if row is None else 3 for row in rows], np.int32)
    return Predictions(
        probabilities=np.array(probabilities, np.float32).reshape(-1, 3),
        num_tokens=num_tokens,
        num_unknown=num_tokens // 3,
        is_truncated=num_tokens > 0,
        by_linear=num_tokens > 0,
    )


def columns(top_k: int | None = None, min_score: float | None = None) -> dict[str, list[object]]:
    added = prediction_columns(
        predictions(ROWS), NAMES, ONE_LABEL, top_k=top_k, min_score=min_score
    )
    return {name: column.to_pylist() for name, column in added.items()}


def test_a_row_has_its_most_probable_label_and_one_without_text_none() -> None:
    found = columns()
    assert list(found) == ["predicted_label", "predicted_score"]
    assert found["predicted_label"] == ["money", None, "sport", "天气"]
    assert found["predicted_score"] == [0.5, None, pytest.approx(0.9), 0.875]


@pytest.mark.parametrize(
    ("min_score", "expected"),
    [
        (0.0, ["money", None, "sport", "天气"]),
        (0.5, ["money", None, "sport", "天气"]),
        (0.875, [None, None, "sport", "天气"]),
        (0.9, [None, None, "sport", None]),
        (1.0, [None, None, None, None]),
    ],
)
def test_min_score_takes_the_label_of_lower_scores_and_keeps_the_score(
    min_score: float, expected: list[str | None]
) -> None:
    found = columns(min_score=min_score)
    assert found["predicted_label"] == expected
    assert found["predicted_score"] == columns()["predicted_score"]


@pytest.mark.parametrize("top_k", [1, 2, 3, 4, 1_000])
def test_top_k_lists_the_best_labels_first_and_at_most_all_of_them(top_k: int) -> None:
    found = columns(top_k=top_k, min_score=1.0)
    ranked = [
        ["money", "sport", "天气"],
        None,
        ["sport", "money", "天气"],
        ["天气", "sport", "money"],
    ]
    scores = [[0.5, 0.25, 0.25], None, [0.9, 0.05, 0.05], [0.875, 0.125, 0.0]]
    assert found["predicted_labels"] == [row and row[:top_k] for row in ranked]
    for row, expected in zip(found["predicted_scores"], scores, strict=True):
        assert row == (expected and pytest.approx(expected[:top_k]))


@pytest.mark.parametrize("rows", [[], [None, None]])
def test_the_types_do_not_depend_on_the_rows(rows: list[None]) -> None:
    some = prediction_columns(predictions(ROWS), NAMES, ONE_LABEL, top_k=2, min_score=0.5)
    none = prediction_columns(predictions(list(rows)), NAMES, ONE_LABEL, top_k=2, min_score=0.5)
    assert {name: column.type for name, column in none.items()} == {
        "predicted_label": pa.string(),
        "predicted_score": pa.float32(),
        "predicted_labels": pa.list_(pa.string()),
        "predicted_scores": pa.list_(pa.float32()),
    }
    assert [column.type for column in none.values()] == [column.type for column in some.values()]
    assert {(len(column), column.null_count) for column in none.values()} == {(len(rows),) * 2}


def test_a_tally_counts_labels_scores_tokens_and_each_row_without_prediction_by_reason() -> None:
    tally = Tally(np.zeros(3))
    texts = read_texts(pa.array([b"a b c", None, b"d e f", b"g h i"]))
    tally.add(predictions(ROWS), texts)
    tally.add(predictions([None] * 2), read_texts(pa.array([b"\xff", b" "])))
    assert tally.label_counts.tolist() == [1, 1, 1]
    assert np.flatnonzero(tally.histogram).tolist() == [10, 17, 18]
    assert tally.missing == {"null": 1, "not_utf8": 1, "empty": 1}
    assert (tally.num_rows, tally.num_tokens) == (6, 9)
    assert (tally.num_unknown, tally.num_truncated) == (3, 3)


_ROW = st.none() | st.sampled_from([(0.5, 0.3, 0.2), (0.1, 0.8, 0.1), (0.0, 0.0, 1.0)])


@example_settings(max_examples=50)
@given(st.lists(_ROW, max_size=12), st.integers(0, 12))
def test_a_tally_of_pieces_is_that_of_the_whole(
    rows: list[tuple[float, ...] | None], cut: int
) -> None:
    texts = [None if row is None else "a b c" for row in rows]
    whole, pieces = Tally(np.zeros(3)), Tally(np.zeros(3))
    whole.add(predictions(rows), read_texts(pa.array(texts, pa.string())))
    for part in (slice(0, cut), slice(cut, None)):
        pieces.add(predictions(rows[part]), read_texts(pa.array(texts[part], pa.string())))
    for name, value in vars(whole).items():
        np.testing.assert_array_equal(vars(pieces)[name], value)
    assert whole.num_rows == whole.histogram.sum() + whole.missing.total()
    assert whole.label_counts.sum() == whole.histogram.sum()
