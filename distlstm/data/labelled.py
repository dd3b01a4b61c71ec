"""Labelled rows: reading them, counting them, and choosing the validation rows."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distlstm.config import TextConfig
from distlstm.data.class_names import class_names, with_class_names
from distlstm.data.files import SourceFile
from distlstm.data.reading import read_batches, read_own_schema
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
from distlstm.text.normalization import normalized
from distlstm.text.soft_labels import SoftLabels, is_soft, read_soft_labels
from distlstm.text.splitting import split
from distlstm.text.tokenizer import truncate

_Read = TypeVar("_Read")
_NO_LABEL, _NO_FAULT = pa.scalar("no label"), pa.scalar(None, pa.string())
_COUNTS = pa.schema([("kind", pa.string()), ("key", pa.string()), ("count", pa.int64())])


@dataclass(frozen=True, kw_only=True)
class Columns:
    """The names of the text, label and weight columns."""

    text: str = "text"
    label: str = "label"
    weight: str = ""
    """If empty, all rows have the same weight."""

    @property
    def names(self) -> list[str]:
        """The columns to read."""
        return [name for name in (self.text, self.label, self.weight) if name]

    def without_weight(self) -> Self:
        """The same columns for validation rows, which are not weighted."""
        return replace(self, weight="")


@dataclass(frozen=True)
class LabelledRows:
    """Rows with a text and a label."""

    texts: pa.Array
    labels: pa.Array
    """Strings, of distributions the most probable label; of label sets, lists of strings."""
    soft_labels: SoftLabels | None
    """The distributions, if the file has them."""
    weights: np.ndarray
    """float32, [rows]; 1 without a weight column."""
    dropped: dict[str, int]
    """Number of rows left out, by reason."""


def read_labelled(unit: Unit, columns: Columns) -> Iterator[LabelledRows]:
    """Read the labelled rows of a unit, batch by batch.

    Numbers of classes that the metadata of the file names become these names.

    Raises:
        UserError: a column is missing, or its type does not fit.
    """
    classes = _class_names(unit.file, columns.label)
    for batch in read_batches(
        unit.file,
        columns=columns.names,
        row_groups=unit.row_groups,
        rows=unit.rows,
    ):
        yield _labelled(batch, columns, unit, classes)


def _class_names(file: SourceFile, column: str) -> tuple[str, ...]:
    return class_names(read_own_schema(file).metadata, column) if file.format == "parquet" else ()


def _labelled(
    batch: pa.RecordBatch, columns: Columns, unit: Unit, classes: tuple[str, ...]
) -> LabelledRows:
    read_label_column = partial(_read_label_column, classes=classes)
    texts = named(read_texts, batch.column(0), columns.text, unit)
    labels = named(read_label_column, batch.column(1), columns.label, unit)
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
    """Labels, of `soft` the most probable; `faults` (string, [rows]) is why a row has none."""

    labels: pa.Array
    soft: SoftLabels | None
    faults: pa.Array


def _read_label_column(column: pa.Array, classes: tuple[str, ...]) -> _LabelColumn:
    if is_soft(column.type):
        soft = read_soft_labels(column)
        return _LabelColumn(soft.most_probable(), soft, soft.faults)
    labels = read_labels(with_class_names(column, classes))
    return _LabelColumn(labels, None, pc.if_else(labels.is_null(), _NO_LABEL, _NO_FAULT))


def _dropped(texts: TextColumn, faults: pa.Array) -> dict[str, int]:
    """Number of rows left out, by reason: a fault of the text, else of label or weight."""
    counts = pc.value_counts(faults.filter(texts.texts.is_valid()).drop_null())
    return {
        **{f"{reason} text": count for reason, count in texts.missing.items()},
        **{row["values"]: row["counts"] for row in counts.to_pylist()},
    }


def named(read: Callable[[pa.Array], _Read], column: pa.Array, name: str, unit: Unit) -> _Read:
    """Call `read(column)`; add the names of column and file to its UserError."""
    try:
        return read(column)
    except UserError as error:
        raise UserError(f"Column {name!r} of {unit.file.path} {error}.") from error


def is_validation(texts: pa.Array, fraction: float) -> np.ndarray:
    """Which rows are held out (bool, [rows]); all rows with the same text are treated alike."""
    return hash_texts(texts) < np.uint64(fraction * 2**64)


def count_labelled(
    units: Sequence[Unit], columns: Columns, text: TextConfig, *, validation_fraction: float
) -> pa.Table:
    """Count tokens and labels of training rows, labels of held-out rows, and rows left out.

    A label with probabilities that is never the most probable has count 0.

    Returns:
        A table with columns kind (`token`, `training`, `validation`, `sets`, `dropped`), key and
        count, which `merge_counts` can merge with others.
    """
    tables = [_COUNTS.empty_table()]
    for unit in units:
        for rows in read_labelled(unit, columns):
            texts = normalized(rows.texts, text)
            held_out = pa.array(is_validation(texts, validation_fraction))
            training = pc.invert(held_out)
            tokens, _ = truncate(split(rows.texts.filter(training), text), text.max_tokens)
            tables += [
                value_counts("token", tokens.flatten()),
                value_counts("training", each_label(rows.labels.filter(training))),
                value_counts("validation", each_label(rows.labels.filter(held_out))),
                _labels_without_rows(rows.soft_labels),
                _count_sets(rows.labels, held_out),
                counted("dropped", list(rows.dropped), list(rows.dropped.values())),
            ]
    return merge_counts(pa.concat_tables(tables))


def merge_counts(counts: pa.Table) -> pa.Table:
    """Add up the counts of equal (kind, key)."""
    merged = counts.group_by(["kind", "key"]).aggregate([("count", "sum")])
    return merged.rename_columns({"count_sum": "count"}).select(_COUNTS.names).cast(_COUNTS)


def of_kind(counts: pa.Table, kind: str, name: str = "key") -> pa.Table:
    """The counts of a kind: columns `name` and count."""
    rows = counts.filter(pc.field("kind") == kind).select(["key", "count"])
    return rows.rename_columns([name, "count"])


def value_counts(kind: str, values: pa.Array) -> pa.Table:
    """Count the distinct values, as a table that `merge_counts` can merge."""
    counts = pc.value_counts(values)
    return counted(kind, counts.field("values"), counts.field("counts"))


def each_label(labels: pa.Array) -> pa.Array:
    """The labels of some rows, in order; label sets are flattened."""
    return pc.list_flatten(labels) if is_label_set(labels.type) else labels


def _count_sets(labels: pa.Array, held_out: pa.Array) -> pa.Table:
    """Count the rows that have a label set, which counts of labels do not give."""
    if not is_label_set(labels.type):
        return _COUNTS.empty_table()
    num_held_out = pc.sum(held_out).as_py() or 0
    counts = [len(labels) - num_held_out, num_held_out]
    return counted("sets", ["training", "validation"], counts)


def _labels_without_rows(soft: SoftLabels | None) -> pa.Table:
    names = [] if soft is None else list(soft.names)
    return counted("training", names, [0] * len(names))


def counted(kind: str, keys: pa.Array | list[str], counts: pa.Array | list[int]) -> pa.Table:
    """A table that `merge_counts` can merge."""
    kinds = pa.array([kind] * len(keys), pa.string())
    arrays = [kinds, pa.array(keys, pa.string()), pa.array(counts, pa.int64())]
    return pa.Table.from_arrays(arrays, schema=_COUNTS)
