"""Tests of distlstm.text.labels."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlstm.text.columns import read_labels
from distlstm.text.labels import UNKNOWN_LABEL, LabelSet


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
    assert set(labels.names) == set(names)
    ids = labels.ids_of(pa.array(["before", *names], pa.string()).slice(1))
    assert [labels.names[i] for i in ids.to_pylist()] == names
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
