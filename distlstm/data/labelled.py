"""Labelled rows: reading them, counting them, and choosing which ones validate."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distlstm.config import TextConfig
from distlstm.data.reading import read_batches
from distlstm.data.units import Unit
from distlstm.errors import UserError
from distlstm.text.columns import (
    TextColumn,
    hash_texts,
    is_label_set,
    read_labels,
    read_texts,
    read_weights,
)
from distlstm.text.soft_labels import SoftLabels, is_soft, read_soft_labels
from distlstm.text.splitting import split
from distlstm.text.tokenizer import truncate

_Read = TypeVar("_Read")
_NO_LABEL, _NO_FAULT = pa.scalar("no label"), pa.scalar(None, pa.string())
_COUNTS = pa.schema([("kind", pa.string()), ("key", pa.string()), ("count", pa.int64())])


@dataclass(frozen=True, kw_only=True)
class Columns:
    """Where text and label stand in the files, and what each row weighs."""

    text: str = "text"
    label: str = "label"
    weight: str = ""
    """Empty: all rows weigh the same."""

    @property
    def names(self) -> list[str]:
        """The columns to read."""
        return [name for name in (self.text, self.label, self.weight) if name]

    def without_weight(self) -> Self:
        """The same for rows that only validate, which all count the same."""
        return replace(self, weight="")


@dataclass(frozen=True)
class LabelledRows:
    """Rows with a text and a label, and how many were dropped for want of either, by reason."""

    texts: pa.Array
    labels: pa.Array
    """Of a distribution, the most probable label; of sets of labels, lists."""
    soft_labels: SoftLabels | None
    """The distributions, where the files have them."""
    weights: np.ndarray
    """float32, [rows]; 1 without a weight column."""
    dropped: dict[str, int]


def read_labelled(unit: Unit, columns: Columns) -> Iterator[LabelledRows]:
    """The labelled rows of a unit, a batch at a time.

    Raises:
        UserError: a column is missing or of a type that is neither text, label nor weight.
    """
    for batch in read_batches(
        unit.file,
        columns=columns.names,
        row_groups=unit.row_groups,
        rows=unit.rows,
    ):
        yield _labelled(batch, columns, unit)


def _labelled(batch: pa.RecordBatch, columns: Columns, unit: Unit) -> LabelledRows:
    texts = named(read_texts, batch.column(0), columns.text, unit)
    labels = named(_read_label_column, batch.column(1), columns.label, unit)
    weights, faults = np.ones(batch.num_rows, np.float32), labels.faults
    if columns.weight:
        column = named(read_weights, batch.column(2), columns.weight, unit)
        weights, faults = column.weights, pc.coalesce(faults, column.faults)
    keep = pc.and_(texts.texts.is_valid(), faults.is_null())
    return LabelledRows(
        texts.texts.filter(keep),
        labels.labels.filter(keep),
        labels.soft and labels.soft.filter(keep),
        weights[keep.to_numpy(zero_copy_only=False)],
        _dropped(texts, faults),
    )


@dataclass(frozen=True)
class _LabelColumn:
    """Labels, plain or the most probable of `soft`, and why a row has none: string, [rows]."""

    labels: pa.Array
    soft: SoftLabels | None
    faults: pa.Array


def _read_label_column(column: pa.Array) -> _LabelColumn:
    if is_soft(column.type):
        soft = read_soft_labels(column)
        return _LabelColumn(soft.most_probable(), soft, soft.faults)
    labels = read_labels(column)
    return _LabelColumn(labels, None, pc.if_else(labels.is_null(), _NO_LABEL, _NO_FAULT))


def _dropped(texts: TextColumn, faults: pa.Array) -> dict[str, int]:
    """Rows left out by reason: what is wrong with the text, else with the rest of the row."""
    counts = pc.value_counts(faults.filter(texts.texts.is_valid()).drop_null())
    return {
        **{f"{reason} text": count for reason, count in texts.missing.items()},
        **{row["values"]: row["counts"] for row in counts.to_pylist()},
    }


def named(read: Callable[[pa.Array], _Read], column: pa.Array, name: str, unit: Unit) -> _Read:
    """Call `read(column)`, and complete its UserError with the column's and the file's name."""
    try:
        return read(column)
    except UserError as error:
        raise UserError(f"Column {name!r} of {unit.file.path} {error}.") from error


def is_validation(texts: pa.Array, fraction: float) -> np.ndarray:
    """Which rows (bool, [rows]) are held out: a text and its duplicates are always together."""
    return hash_texts(texts) < np.uint64(fraction * 2**64)


def count_labelled(
    units: Sequence[Unit], columns: Columns, text: TextConfig, *, validation_fraction: float
) -> pa.Table:
    """Count tokens and labels of training rows, labels of held-out rows, and rows dropped.

    A label that has probabilities is there even if it is nowhere the most probable: with count 0.

    Returns:
        Columns kind (`token`, `training`, `validation`, `dropped`), key, count: a table that
        `merge_counts` adds to others of its kind.
    """
    tables = [_COUNTS.empty_table()]
    for unit in units:
        for rows in read_labelled(unit, columns):
            held_out = pa.array(is_validation(rows.texts, validation_fraction))
            training = pc.invert(held_out)
            tokens, _ = truncate(split(rows.texts.filter(training), text), text.max_tokens)
            tables += [
                _value_counts("token", tokens.flatten()),
                _value_counts("training", each_label(rows.labels.filter(training))),
                _value_counts("validation", each_label(rows.labels.filter(held_out))),
                _labels_without_rows(rows.soft_labels),
                _count_sets(rows.labels, held_out),
                _count_table("dropped", list(rows.dropped), list(rows.dropped.values())),
            ]
    return merge_counts(pa.concat_tables(tables))


def merge_counts(counts: pa.Table) -> pa.Table:
    """Add up the counts of equal (kind, key)."""
    merged = counts.group_by(["kind", "key"]).aggregate([("count", "sum")])
    return merged.rename_columns({"count_sum": "count"}).select(_COUNTS.names).cast(_COUNTS)


def _value_counts(kind: str, values: pa.Array) -> pa.Table:
    counts = pc.value_counts(values)
    return _count_table(kind, counts.field("values"), counts.field("counts"))


def each_label(labels: pa.Array) -> pa.Array:
    """The labels of some rows, one after the other; those of sets in turn."""
    return pc.list_flatten(labels) if is_label_set(labels.type) else labels


def _count_sets(labels: pa.Array, held_out: pa.Array) -> pa.Table:
    """Rows with a set of labels, which no count of labels gives."""
    if not is_label_set(labels.type):
        return _COUNTS.empty_table()
    num_held_out = pc.sum(held_out).as_py() or 0
    counts = [len(labels) - num_held_out, num_held_out]
    return _count_table("sets", ["training", "validation"], counts)


def _labels_without_rows(soft: SoftLabels | None) -> pa.Table:
    names = [] if soft is None else list(soft.names)
    return _count_table("training", names, [0] * len(names))


def _count_table(kind: str, keys: pa.Array | list[str], counts: pa.Array | list[int]) -> pa.Table:
    kinds = pa.array([kind] * len(keys), pa.string())
    arrays = [kinds, pa.array(keys, pa.string()), pa.array(counts, pa.int64())]
    return pa.Table.from_arrays(arrays, schema=_COUNTS)
