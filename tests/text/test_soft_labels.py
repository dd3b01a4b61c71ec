"""Tests of distlstm.text.soft_labels."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlstm.errors import UserError
from distlstm.text.labels import LabelSet
from distlstm.text.soft_labels import is_soft, read_soft_labels

NAN, INFINITY = float("nan"), float("inf")
ROWS = st.lists(
    st.dictionaries(
        st.sampled_from(["a", "b", "是", "10"]),
        st.one_of(st.none(), st.floats(0, 9), st.sampled_from([-0.5, NAN, INFINITY, 1e-300])),
        max_size=4,
    )
    | st.none(),
    max_size=12,
)
MAP = pa.map_(pa.string(), pa.float64())
STRUCT = pa.struct([(name, pa.float64()) for name in ("b", "a", "是", "10")])


def as_maps(rows: list[dict[str, float | None] | None]) -> pa.Array:
    return pa.array([None if row is None else list(row.items()) for row in rows], MAP)


def plain(row: dict[str, float | None] | None) -> dict[str, float] | None:
    """A row's distribution by the book, None where it has none; what rounds to 0 is no share."""
    values = {name: value or 0.0 for name, value in (row or {}).items()}
    total = sum(values.values())
    if not np.isfinite(total) or min(values.values(), default=0) < 0 or total == 0:
        return None
    return {name: share for name, value in values.items() if (share := value / total)}


@settings(max_examples=100)
@given(ROWS, st.integers(0, 3))
@pytest.mark.parametrize("kind", ["map", "struct"])
def test_rows_are_divided_by_their_sum_and_bad_ones_have_a_fault(
    kind: str, rows: list[dict[str, float | None] | None], start: int
) -> None:
    column = as_maps(rows) if kind == "map" else pa.array(rows, STRUCT)
    soft = read_soft_labels(column.slice(start))
    faulty = soft.faults.is_valid().to_pylist()
    for row, found, fault, best in zip(
        rows[start:], soft.probabilities, faulty, soft.most_probable().to_pylist(), strict=True
    ):
        wanted = plain(row)
        assert fault == (wanted is None)
        got = {name: p for name, p in zip(soft.names, found, strict=True) if p}
        assert got == pytest.approx(wanted or {})
        if wanted:
            assert found.sum() == pytest.approx(1)
            assert wanted[best] == pytest.approx(max(wanted.values()))
        else:
            assert best is None


def test_a_row_says_why_it_cannot_be_used() -> None:
    rows = [{"a": 1.0}, None, {"a": 0.0}, {"a": -1.0, "b": 5.0}, {"a": NAN}, {"b": INFINITY}, {}]
    none, bad = "probabilities that are all 0", "a negative or infinite probability"
    for column in (as_maps(rows), pa.array(rows)):
        faults = read_soft_labels(column).faults.to_pylist()
        assert faults == [None, "no label", none, bad, bad, bad, none]


def test_names_are_trimmed_and_equal_ones_added_up() -> None:
    rows = pa.array([[(" a", 1.0), ("a ", 2.0), ("b", 1.0)]], MAP)
    soft = read_soft_labels(rows)
    assert soft.names == ("a", "b")
    assert soft.probabilities.tolist() == [[0.75, 0.25]]


@pytest.mark.parametrize("kind", [pa.int8(), pa.float16(), pa.float32(), pa.decimal128(22, 2)])
def test_probabilities_are_of_any_numeric_type(kind: pa.DataType) -> None:
    column = pa.array([{"a": 1, "b": 3}]).cast(pa.struct([("a", kind), ("b", kind)]))
    assert read_soft_labels(column).probabilities.tolist() == [[0.25, 0.75]]


def test_labels_stand_by_label_id_and_what_lies_outside_is_shared_out() -> None:
    soft = read_soft_labels(pa.array([{"10": 1.0, "9": 1.0, "x": 2.0}, {"x": 1.0}]))
    assert soft.over(LabelSet(("9", "10", "11"))).tolist() == [[0.5, 0.5, 0], [0, 0, 0]]
    assert soft.over(LabelSet(("9", "10", "x")))[0].tolist() == [0.25, 0.25, 0.5]
    assert soft.filter(pa.array([False, True])).over(LabelSet(("x",))).tolist() == [[1.0]]


def test_equal_probabilities_give_the_first_label_by_name() -> None:
    for rows in ([("b", 1.0), ("a", 1.0)], [("a", 1.0), ("b", 1.0)]):
        assert read_soft_labels(pa.array([rows], MAP)).most_probable().to_pylist() == ["a"]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([{"label": "a", "score": 0.5}]), "must be a number"),
        (pa.array([{"a": [0.5]}]), "must be a number"),
        (pa.array([{" ": 0.5}]), "without a name"),
        (pa.array([{f"id {i}": 0.5 for i in range(1001)}]), "1001 labels"),
    ],
)
def test_what_is_no_distribution_is_refused(column: pa.Array, message: str) -> None:
    assert is_soft(column.type)
    with pytest.raises(UserError, match=message):
        read_soft_labels(column)


@pytest.mark.parametrize("kind", ["map", "struct"])
def test_probabilities_of_one_label_in_two_spellings_are_added_up(kind: str) -> None:
    row = {"1": 1.0, "1.0": 2.0, "cafe\u0301": 3.0, "café": 2.0}
    column = as_maps([row]) if kind == "map" else pa.array([row])
    soft = read_soft_labels(column)
    assert dict(zip(soft.names, soft.probabilities[0], strict=True)) == {"1": 0.375, "café": 0.625}
    assert soft.over(LabelSet(("1.0", "café"))).tolist() == [[0.375, 0.625]]
