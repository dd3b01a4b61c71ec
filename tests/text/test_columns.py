"""Tests of distlstm.text.columns."""

import datetime
import decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlstm.errors import UserError
from distlstm.text.columns import hash_texts, is_text_type, read_labels, read_texts
from distlstm.text.labels import LabelSet

TEXTS = ["before", " a\t", None, "", "é 你好", "\u3000", "after", None]
TEXT_TYPES = [pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary()]


def sliced(values: list[object], kind: pa.DataType | None = None) -> pa.Array:
    """The values as an array that does not begin at the start of its buffers."""
    return pa.array([*values[:1], *values[:1], *values, *values[:1]], kind).slice(2, len(values))


@pytest.mark.parametrize("kind", TEXT_TYPES, ids=str)
@pytest.mark.parametrize(("start", "stop"), [(0, 8), (1, 7), (3, 3)])
def test_a_slice_of_any_text_type_gives_its_own_rows(
    kind: pa.DataType, start: int, stop: int
) -> None:
    whole = pa.array([None if t is None else t.encode() for t in TEXTS]).cast(kind)
    column = read_texts(whole.slice(start, stop - start))
    expected = [(t or "").strip() or None for t in TEXTS[start:stop]]
    assert column.texts.to_pylist() == expected
    assert column.texts.type == pa.string()
    nulls = TEXTS[start:stop].count(None)
    assert column.missing.get("null", 0) == nulls
    assert sum(column.missing.values()) == expected.count(None)


@pytest.mark.parametrize("text", ["\ufeff", " \u200b \u2060", "\u00ad", "\u3000\u200d", "\u200f"])
def test_a_text_without_a_visible_character_is_empty(text: str) -> None:
    column = read_texts(sliced(["é", text, None, "a"]))
    assert column.texts.to_pylist() == ["é", None, None, "a"]
    assert column.missing == {"null": 1, "empty": 1}


def test_a_text_keeps_its_characters_for_whoever_reads_it() -> None:
    assert read_texts(pa.array([" \ufeffＡ "])).texts.to_pylist() == ["\ufeffＡ"]


@pytest.mark.parametrize("storage", [pa.string(), pa.large_string(), pa.string_view()], ids=str)
def test_json_is_text_and_may_be_a_label(storage: pa.DataType) -> None:
    values = sliced(['"a"', None, "{}"], storage)
    column = pa.ExtensionArray.from_storage(pa.json_(storage), values)
    assert is_text_type(column.type)
    assert read_texts(column.slice(1)).texts.to_pylist() == [None, "{}"]
    assert read_labels(column).to_pylist() == ['"a"', None, "{}"]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()], ids=str)
def test_bytes_that_are_not_utf8_are_null_wherever_the_slice_begins(kind: pa.DataType) -> None:
    column = read_texts(sliced([b"\xff", b"a", None, b"\xc3", b"", "é".encode()], kind))
    assert column.texts.to_pylist() == [None, "a", None, None, None, "é"]
    assert column.missing == {"null": 1, "not_utf8": 2, "empty": 1}


def test_a_string_column_whose_bytes_are_not_utf8_is_nulled_too() -> None:
    offsets, data = np.array([0, 1, 2], np.int32), pa.py_buffer(b"\xffa")
    broken = pa.Array.from_buffers(pa.string(), 2, [None, pa.py_buffer(offsets), data])
    column = read_texts(broken)
    assert column.texts.to_pylist() == [None, "a"]
    assert column.missing == {"not_utf8": 1}


def test_a_categorical_column_is_read_wherever_the_slice_begins() -> None:
    column = read_texts(sliced(["b", None, "a", " ", "b"]).dictionary_encode().slice(1, 4))
    assert column.texts.to_pylist() == [None, "a", None, "b"]
    assert column.missing == {"null": 1, "empty": 1}


def test_a_null_inside_the_categories_is_a_null_not_a_broken_text() -> None:
    codes = pa.array([0, 1, None], pa.int8())
    column = read_texts(pa.DictionaryArray.from_arrays(codes, pa.array(["a", None])))
    assert column.texts.to_pylist() == ["a", None, None]
    assert column.missing == {"null": 2}


def test_a_column_of_nulls_is_a_column_without_text() -> None:
    column = read_texts(pa.nulls(3))
    assert column.texts.to_pylist() == [None] * 3
    assert column.missing == {"null": 3}


def test_a_clean_column_has_no_reason_to_report() -> None:
    assert read_texts(pa.array(["a"])).missing == {}
    assert read_texts(pa.array([], pa.string())).missing == {}


@pytest.mark.parametrize(
    "kind",
    [pa.int64(), pa.float32(), pa.bool_(), pa.list_(pa.string()), pa.date32(), pa.binary(4)],
    ids=str,
)
def test_what_holds_no_text_is_refused_by_its_type(kind: pa.DataType) -> None:
    assert not is_text_type(kind)
    with pytest.raises(UserError, match="not text"):
        read_texts(pa.array([], kind))


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.int8(), pa.uint64(), pa.float16(), pa.float32(), pa.float64(), pa.string()),
        *(pa.decimal32(6, 2), pa.decimal64(9, 0), pa.decimal128(38, 0), pa.decimal256(60, 9)),
    ],
    ids=str,
)
def test_one_label_reads_the_same_whatever_type_its_file_gave_it(kind: pa.DataType) -> None:
    column = sliced([1, None, 30], pa.int8()).cast(kind)
    assert read_labels(column).to_pylist() == ["1", None, "30"]


def test_a_whole_float_that_came_from_a_nullable_integer_is_that_integer() -> None:
    column = pa.array([float("nan"), 2.0**60, -0.0, None, -7.0]).slice(1)
    assert read_labels(column).to_pylist() == [str(2**60), "0", None, "-7"]


def test_truth_values_are_labels() -> None:
    assert read_labels(pa.array([True, None, False])).to_pylist() == ["true", None, "false"]


def test_categorical_labels_may_be_texts_or_numbers() -> None:
    assert read_labels(pa.array([3, 1, None, 3]).dictionary_encode()).to_pylist() == [
        *("3", "1"),
        *(None, "3"),
    ]
    assert read_labels(sliced([b" x", b"\xff", b""])).to_pylist() == ["x", None, None]


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 0.5],
        [float("inf")],
        [1e300],
        [datetime.date(2020, 1, 1)],
        [{"a": 1}],
        [decimal.Decimal("1.5")],
        [decimal.Decimal("1.00"), decimal.Decimal("0.01")],
        [datetime.timedelta(1)],
    ],
    ids=str,
)
def test_what_is_neither_text_nor_whole_is_refused_as_a_label(values: list[object]) -> None:
    with pytest.raises(UserError, match="a label is a text or a whole number"):
        read_labels(pa.array(values))


@pytest.mark.parametrize(
    ("value", "fault"), [(0.5, "fractions"), (1e300, "64 bits"), (-float("inf"), "infinite")]
)
def test_what_is_wrong_with_a_float_as_label_is_said(value: float, fault: str) -> None:
    with pytest.raises(UserError, match=fault):
        read_labels(pa.array([1.0, None, value]))


def test_names_that_look_the_same_are_one_label() -> None:
    column = pa.array(["café", "cafe\u0301", "\ufeffcafé ", "caf\u00adé", "\u200b", "x²"])
    assert read_labels(column).to_pylist() == [*["café"] * 4, None, "x²"]
    sets = read_labels(pa.array([["café", "cafe\u0301"], ["\ufeff"], None]))
    assert sets.to_pylist() == [["café"], [], None]


@settings(max_examples=40)
@given(st.lists(st.text(max_size=8), max_size=12), st.data())
def test_equal_texts_have_equal_hashes_in_any_order_and_slice(
    texts: list[str], data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(texts)))
    column = pa.array(texts, pa.string())
    hashes = hash_texts(column)
    assert hashes.dtype == np.uint64
    assert hash_texts(column.slice(start)).tolist() == hashes[start:].tolist()
    assert hash_texts(pa.array(texts[::-1], pa.large_string())).tolist() == hashes[::-1].tolist()
    assert len(set(hashes.tolist())) == len(set(texts))


def test_a_text_has_the_same_hash_in_every_run() -> None:
    hashes = hash_texts(pa.array(["distlstm", "分类"])).tolist()
    assert hashes == [12814677255365684717, 12088269414298530809]


@pytest.mark.parametrize(
    "kind", [pa.list_(pa.string()), pa.large_list(pa.large_string()), pa.list_(pa.binary())]
)
def test_sets_of_labels_keep_each_label_once(kind: pa.DataType) -> None:
    rows = [["b", " a ", "a", None, ""], [], None, [None], ["c"]]
    sets = read_labels(pa.array([["x"], *rows], kind).slice(1))
    found = [None if row is None else sorted(row) for row in sets.to_pylist()]
    assert found == [["a", "b"], [], None, [], ["c"]]
    assert sets.type == pa.list_(pa.string())


def test_a_column_of_empty_sets_is_one_of_sets() -> None:
    assert read_labels(pa.array([[], None])).to_pylist() == [[], None]


def test_members_stand_by_label_id() -> None:
    sets = pa.array([["x"], ["b", "unknown"], None, [], ["a", "b"]]).slice(1)
    members = LabelSet(("a", "b")).members_of(sets)
    assert members.tolist() == [[0, 1], [0, 0], [0, 0], [1, 1]]
