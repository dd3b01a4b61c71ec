"""Tests of distlstm.data.labelled."""

from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlstm.config import TextConfig
from distlstm.data.files import find_files
from distlstm.data.labelled import (
    Columns,
    count_labelled,
    is_validation,
    merge_counts,
    read_labelled,
)
from distlstm.data.units import Unit
from distlstm.errors import UserError

COUNTS = pa.schema([("kind", pa.string()), ("key", pa.string()), ("count", pa.int64())])


def unit_of(path: Path, columns: dict[str, object], *, rows_per_group: int = 1000) -> Unit:
    pq.write_table(pa.table(columns), path, row_group_size=rows_per_group)
    (file,) = find_files([str(path)])
    return Unit(file=file)


def as_counter(counts: pa.Table) -> Counter[tuple[str, str]]:
    rows = counts.to_pylist()
    keys = [(row["kind"], row["key"]) for row in rows]
    assert len(set(keys)) == len(keys)
    return Counter(dict(zip(keys, (row["count"] for row in rows), strict=True)))


def test_rows_without_text_or_label_are_dropped_and_counted_by_reason(tmp_path: Path) -> None:
    columns = {
        "text": pa.array([b" a ", None, b"", b"\xff", b"b", b"c", None, b"d", b" "], pa.binary()),
        "label": ["x", "x", "x", "x", None, " ", None, "y", None],
    }
    (rows,) = read_labelled(unit_of(tmp_path / "a.parquet", columns), Columns())
    assert rows.texts.to_pylist() == ["a", "d"]
    assert rows.labels.to_pylist() == ["x", "y"]
    assert rows.dropped == {"null text": 2, "empty text": 2, "not_utf8 text": 1, "no label": 2}
    assert sum(rows.dropped.values()) + len(rows.texts) == 9


def test_clean_rows_drop_nothing_and_other_columns_may_hold_them(tmp_path: Path) -> None:
    unit = unit_of(tmp_path / "a.parquet", {"body": ["a", "b"], "stars": [10, 9], "text": [0, 0]})
    (rows,) = read_labelled(unit, Columns(text="body", label="stars"))
    assert (rows.texts.to_pylist(), rows.labels.to_pylist()) == (["a", "b"], ["10", "9"])
    assert rows.dropped == {}


def test_a_unit_reads_its_own_row_groups(tmp_path: Path) -> None:
    texts = [f"t{i}" for i in range(6)]
    whole = unit_of(tmp_path / "a.parquet", {"text": texts, "label": texts}, rows_per_group=2)
    unit = Unit(file=whole.file, row_groups=(1,), index=1, num_units=3)
    assert [t for rows in read_labelled(unit, Columns()) for t in rows.texts.to_pylist()] == [
        "t2",
        "t3",
    ]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": ["a"], "label": [0.5]}, "Column 'label' of .*a.parquet has fractions"),
        ({"text": ["a"], "label": [[1]]}, "Column 'label' of .*a.parquet has type list"),
        (
            {"text": ["a"], "label": [[0.5]]},
            "Column 'label' of .*a.parquet has type list.* a struct",
        ),
        ({"text": ["a"], "label": [{"x": "y"}]}, "Column 'label' of .* must be a number"),
        ({"text": [1], "label": ["x"]}, "Column 'text' of .*a.parquet has type int64"),
        ({"text": ["a"]}, "No column 'label' in .*a.parquet. It has: 'text'"),
    ],
)
def test_what_is_wrong_with_a_column_is_said_with_its_file(
    tmp_path: Path, columns: dict[str, object], message: str
) -> None:
    unit = unit_of(tmp_path / "a.parquet", columns)
    with pytest.raises(UserError, match=message):
        list(read_labelled(unit, Columns()))


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.3, 0.5])
def test_about_the_asked_share_is_held_out(fraction: float) -> None:
    texts = pa.array([f"review number {i}" for i in range(20_000)])
    tolerance = 5 * (fraction * (1 - fraction) / 20_000) ** 0.5
    assert abs(is_validation(texts, fraction).mean() - fraction) < tolerance


def test_holding_out_more_keeps_what_was_held_out() -> None:
    texts = pa.array([f"review number {i}" for i in range(5_000)])
    fewer, more = is_validation(texts, 0.1), is_validation(texts, 0.2)
    assert (more | ~fewer).all()


def test_duplicates_are_on_one_side_in_whatever_batch_or_type_they_come() -> None:
    texts = [f"text {i % 50}" for i in range(200)]
    whole = is_validation(pa.array(texts), 0.5)
    sides = dict(zip(texts, whole.tolist(), strict=True))
    assert len(set(sides.values())) == 2
    assert whole.tolist() == [sides[text] for text in texts]
    part = is_validation(pa.array(texts).slice(17, 60), 0.5)
    assert part.tolist() == whole[17:77].tolist()


@pytest.mark.parametrize("fraction", [0.0, 0.3])
def test_counts_equal_those_of_a_plain_loop(tmp_path: Path, fraction: float) -> None:
    texts = [None if i % 11 == 0 else f"Word{i % 7} 好 word{i % 3}, x" for i in range(300)]
    labels = [None if i % 13 == 0 else i % 4 for i in range(300)]
    units = [
        unit_of(tmp_path / f"{name}.parquet", {"text": texts[a:b], "label": labels[a:b]})
        for name, a, b in (("a", 0, 100), ("b", 100, 101), ("c", 101, 300))
    ]
    expected: Counter[tuple[str, str]] = Counter()
    for text, label in zip(texts, labels, strict=True):
        if text is None or label is None:
            expected["dropped", "null text" if text is None else "no label"] += 1
        elif is_validation(pa.array([text]), fraction)[0]:
            expected["validation", str(label)] += 1
        else:
            expected["training", str(label)] += 1
            first = [text.split()[0].lower(), "好", *text.lower().split()[2].partition(",")[:2]]
            expected.update(("token", token) for token in first[:3])
    counted = count_labelled(
        units, Columns(), TextConfig(max_tokens=3), validation_fraction=fraction
    )
    assert as_counter(counted) == expected
    assert counted.schema == COUNTS


def test_units_without_rows_count_nothing(tmp_path: Path) -> None:
    empty = pa.array([], pa.string())
    unit = unit_of(tmp_path / "a.parquet", {"text": empty, "label": empty})
    for units in ([], [unit], [unit, unit]):
        counts = count_labelled(units, Columns(), TextConfig(), validation_fraction=0.1)
        assert counts.num_rows == 0
        assert counts.schema == COUNTS


PARTS = st.lists(
    st.lists(
        st.tuples(
            st.sampled_from(["token", "training"]), st.sampled_from("ab猫"), st.integers(0, 9)
        ),
        max_size=6,
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=40)
@given(PARTS, st.data())
def test_counts_are_the_same_however_they_are_merged(
    parts: list[list[tuple[str, str, int]]], data: st.DataObject
) -> None:
    tables = [
        pa.Table.from_pylist(
            [{"kind": k, "key": key, "count": n} for k, key, n in part], schema=COUNTS
        )
        for part in parts
    ]
    at_once = merge_counts(pa.concat_tables(tables))
    cut = data.draw(st.integers(0, len(tables) - 1))
    left = merge_counts(pa.concat_tables([COUNTS.empty_table(), *tables[:cut]]))
    in_steps = merge_counts(pa.concat_tables([merge_counts(t) for t in (left, *tables[cut:])]))
    expected: Counter[tuple[str, str]] = Counter()
    for part in parts:
        for kind, key, count in part:
            expected[kind, key] += count
    assert dict(as_counter(at_once)) == dict(as_counter(in_steps)) == dict(expected)
    assert at_once.schema == in_steps.schema == COUNTS


def test_distributions_are_read_with_their_most_probable_label(tmp_path: Path) -> None:
    rows = {
        "text": ["a", None, "b", "c", "d", "e"],
        "label": [
            {"x": 1, "y": 3},
            {"x": 1},
            None,
            {"x": -1.0},
            {"x": 0, "y": 0},
            {"x": 2, "y": 0},
        ],
        "w": [5.0, None, None, None, 1.0, 6.0],
    }
    (read,) = read_labelled(unit_of(tmp_path / "a.parquet", rows), Columns(weight="w"))
    assert read.soft_labels is not None
    assert (read.texts.to_pylist(), read.weights.tolist()) == (["a", "e"], [5.0, 6.0])
    assert read.labels.to_pylist() == ["y", "x"]
    assert read.soft_labels.probabilities.tolist() == [[0.25, 0.75], [1.0, 0.0]]
    assert read.dropped == {
        "null text": 1,
        "no label": 1,
        "a negative or infinite probability": 1,
        "probabilities that are all 0": 1,
    }


def test_a_label_that_is_nowhere_the_most_probable_is_counted_0_times(tmp_path: Path) -> None:
    rows = {"text": ["a", "b"], "label": [{"x": 0.6, "y": 0.4}] * 2}
    unit = unit_of(tmp_path / "a.parquet", rows)
    counts = count_labelled([unit], Columns(), TextConfig(), validation_fraction=0)
    found = {row["key"]: row["count"] for row in counts.to_pylist() if row["kind"] == "training"}
    assert found == {"x": 2, "y": 0}
