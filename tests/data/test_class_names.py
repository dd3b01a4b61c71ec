"""Tests of distlstm.data.class_names."""

import json
from typing import Any

import pyarrow as pa
import pytest

from distlstm.data.class_names import class_names, with_class_names
from distlstm.errors import UserError

CLASSES = {"names": ["neg", "pos"], "_type": "ClassLabel"}


def metadata(feature: Any) -> dict[bytes, bytes]:
    features = {"label": feature, "text": {"dtype": "string", "_type": "Value"}}
    return {b"huggingface": json.dumps({"info": {"features": features}}).encode()}


@pytest.mark.parametrize(
    "feature",
    [
        CLASSES,
        {"feature": CLASSES, "_type": "Sequence", "length": -1},
        {"feature": CLASSES, "_type": "List"},
        {"feature": CLASSES, "_type": "LargeList"},
        [CLASSES],
    ],
)
def test_names_are_found_for_a_class_and_for_lists_of_them(feature: Any) -> None:
    assert class_names(metadata(feature), "label") == ("neg", "pos")
    assert class_names(metadata(feature), "text") == ()
    assert class_names(metadata(feature), "other") == ()


@pytest.mark.parametrize(
    "strange",
    [
        *(None, {}, {b"pandas": b"{}"}, {b"huggingface": b"\xff"}, {b"huggingface": b"{"}),
        *({b"huggingface": b"[]"}, {b"huggingface": b"3"}, {b"huggingface": b'{"info": null}'}),
        {b"huggingface": b"[" * 100_000},
        *map(metadata, [None, 3, "ClassLabel", [], [CLASSES] * 2, {"_type": "ClassLabel"}]),
        *(metadata({**CLASSES, "names": names}) for names in (None, "ab", [1, 2], {}, [])),
    ],
)
def test_metadata_of_any_other_form_names_nothing(strange: dict[bytes, bytes] | None) -> None:
    assert class_names(strange, "label") == ()


@pytest.mark.parametrize("kind", [pa.int8(), pa.int64(), pa.uint64()], ids=str)
def test_numbers_become_names(kind: pa.DataType) -> None:
    column = pa.array([9, 1, None, 0], kind).slice(1)
    assert with_class_names(column, ("neg", "pos")).to_pylist() == ["pos", None, "neg"]


def test_minus_one_is_no_label() -> None:
    assert with_class_names(pa.array([-1, 1]), ("neg", "pos")).to_pylist() == [None, "pos"]


@pytest.mark.parametrize("lists", [pa.list_, pa.large_list], ids=["list", "large_list"])
def test_lists_of_numbers_become_lists_of_names(lists: Any) -> None:
    column = pa.array([[7], [0, 1], [], None, [1, -1]], lists(pa.int32())).slice(1)
    named = with_class_names(column, ("neg", "pos"))
    assert named.to_pylist() == [["neg", "pos"], [], None, ["pos", None]]
    fixed = pa.array([[0, 1], None], pa.list_(pa.int8(), 2))
    assert with_class_names(fixed, ("neg", "pos")).to_pylist() == [["neg", "pos"], None]


@pytest.mark.parametrize("number", [2, -2, 2**63])
def test_a_number_without_a_name_is_an_error_with_the_number(number: int) -> None:
    column = pa.array([0, number], pa.uint64() if number > 2 else pa.int64())
    with pytest.raises(UserError, match=f"has the class {number}, .* classes from 0 to 1"):
        with_class_names(column, ("neg", "pos"))


def test_columns_without_names_or_of_other_types_stay() -> None:
    assert with_class_names(pa.array([5]), ()).to_pylist() == [5]
    assert with_class_names(pa.array(["5"]), ("a", "b")).to_pylist() == ["5"]
    assert with_class_names(pa.array([["5"]]), ("a", "b")).to_pylist() == [["5"]]
    assert with_class_names(pa.array([None, None]), ("a", "b")).to_pylist() == [None, None]
