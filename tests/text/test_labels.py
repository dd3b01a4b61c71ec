"""Tests of distlstm.text.labels."""

from collections.abc import Iterable

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlstm.text.columns import read_labels
from distlstm.text.labels import UNKNOWN_LABEL, LabelSet, label_keys


def keys(names: Iterable[str]) -> list[str]:
    found: list[str] = label_keys(pa.array(list(names), pa.string())).to_pylist()
    return found


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["10", "9", "-1"], ("-1", "9", "10")),
        (["1", "01", "0"], ("0", "01", "1")),
        (["true", "false"], ("false", "true")),
        (["9", "10", "x"], ("10", "9", "x")),
        (["天", "a", "B"], ("B", "a", "天")),
        (["1.5", "10", "9"], ("1.5", "10", "9")),
        ([], ()),
    ],
)
def test_label_ids_follow_numbers_or_names(names: list[str], expected: tuple[str, ...]) -> None:
    assert LabelSet.of(names).names == expected
    assert len(LabelSet.of(names)) == len(expected)


@settings(max_examples=50)
@given(st.lists(st.one_of(st.integers(-99, 99).map(str), st.text(max_size=3)), max_size=12))
def test_label_ids_do_not_depend_on_the_order_in_which_labels_were_seen(names: list[str]) -> None:
    labels = LabelSet.of(names)
    assert labels == LabelSet.of(names[::-1] + names)
    assert set(labels.names) <= set(names)
    assert sorted(keys(labels.names)) == sorted(set(keys(names)))
    ids = labels.ids_of(pa.array(["before", *names], pa.string()).slice(1))
    assert keys(labels.names[i] for i in ids.to_pylist()) == keys(names)
    assert ids.type == pa.int32()


def test_labels_never_seen_and_no_label_have_an_id_of_their_own() -> None:
    labels = LabelSet.of(["a", "b"])
    column = pa.array(["b", None, "c", "A", "a"]).slice(1)
    assert labels.ids_of(column).to_pylist() == [UNKNOWN_LABEL] * 3 + [0]
    assert LabelSet(()).ids_of(column).to_pylist() == [UNKNOWN_LABEL] * 4


@pytest.mark.parametrize("values", [[1, 0, 10], [1.0, 0.0, 10.0], ["1", " 0", "10"]])
def test_a_label_keeps_its_id_when_another_file_types_it_otherwise(values: list[object]) -> None:
    labels = LabelSet.of(["0", "1", "10"])
    assert labels.ids_of(read_labels(pa.array(values))).to_pylist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("spellings", "key"),
    [
        (["0", "0.0", "-0", "-0.00", " 0.0 "], "0"),
        (["-3", "-3.0", "-3.00"], "-3"),
        (["100", "100.000"], "100"),
        (["true", "True", "TRUE"], "true"),
        (["false", "False", "FALSE"], "false"),
        (["café", "cafe\u0301", "\ufeffcafé"], "café"),
    ],
)
def test_spellings_of_one_label_have_one_key(spellings: list[str], key: str) -> None:
    assert keys(spellings) == [key] * len(spellings)


@pytest.mark.parametrize(
    "name",
    ["1e3", "01", "01.0", "1.50", ".0", "1.", "+1", "1.0.0", "v1.0", "tRue", "T", "Ａ", "x²"],
)
def test_a_name_that_no_type_of_file_makes_is_its_own_key(name: str) -> None:
    assert keys([name]) == [name]


def test_one_label_has_the_first_of_its_spellings() -> None:
    assert LabelSet.of(["1.0", "10", "0", "0.0", "1"]).names == ("0", "1", "10")
    assert LabelSet.of(["true", "True", "False"]).names == ("False", "True")


def test_labels_meet_however_their_files_spell_them() -> None:
    labels = LabelSet(("0.0", "1.0", "True", "x"))
    column = pa.array(["0", "1.00", "true", "X", "2.0", None])
    assert labels.ids_of(column).to_pylist() == [0, 1, 2, -1, -1, -1]
    sets = pa.array([["0", "TRUE"], ["x", "5"]])
    assert labels.members_of(sets).tolist() == [[1, 0, 1, 0], [0, 0, 0, 1]]


def test_the_labels_of_an_earlier_model_all_stay_and_each_keeps_its_own() -> None:
    labels = LabelSet.of(["0.00", "2.0", "x"], kept=("0", "0.0", "1.0"))
    assert set(labels.names) == {"0", "0.0", "1.0", "2.0", "x"}
    found = labels.ids_of(pa.array(["0", "0.0", "1", "2"])).to_pylist()
    assert [labels.names[i] for i in found] == ["0", "0.0", "1.0", "2.0"]
