"""Labels given as probabilities, such as the predictions of a larger model that is distilled.

Each row of the column has one distribution: a struct (a field for each label) or a map (label to
probability).
"""

from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distlstm.errors import UserError
from distlstm.text.labels import UNKNOWN_LABEL, LabelSet, label_keys
from distlstm.text.normalization import clean_names

_MOST_LABELS = 1_000


@dataclass(frozen=True)
class SoftLabels:
    """A distribution over labels for each row.

    `names` are the N labels, in order. `probabilities` (float64, [rows, N]) sum to 1 in each row,
    or are all 0 if the row has a fault. `faults` (string, [rows]) describe the faults; null means
    none.
    """

    names: tuple[str, ...]
    probabilities: np.ndarray
    faults: pa.Array

    def most_probable(self) -> pa.Array:
        """The most probable label of each row (string, [rows]); of equal ones, the first by name.

        Rows with a fault are null.
        """
        if not self.names:
            return pa.nulls(len(self.faults), pa.string())
        indices = pa.array(
            self.probabilities.argmax(1), mask=~self.faults.is_null().to_numpy(zero_copy_only=False)
        )
        return pa.array(self.names, pa.string()).take(indices)

    def filter(self, keep: pa.Array) -> Self:
        """The rows for which `keep` (bool, [rows]) is true."""
        rows = self.probabilities[keep.to_numpy(zero_copy_only=False)]
        return type(self)(self.names, rows, self.faults.filter(keep))

    def over(self, labels: LabelSet) -> np.ndarray:
        """The distributions by label id (float32, [rows, C]).

        Probabilities of labels outside the set are dropped, and each row is normalised again. A
        row without any probability within the set is all 0.
        """
        ids = labels.ids_of(pa.array(self.names, pa.string())).to_numpy(zero_copy_only=False)
        known = ids != UNKNOWN_LABEL
        inside = np.zeros((len(self.probabilities), len(labels)))
        inside[:, ids[known]] = self.probabilities[:, known]
        return _normalised(inside).astype(np.float32)


def is_soft(kind: pa.DataType) -> bool:
    """Whether a label column of this Arrow type contains distributions."""
    return bool(pa.types.is_struct(kind) or pa.types.is_map(kind))


def read_soft_labels(column: pa.Array) -> SoftLabels:
    """Read distributions from a struct or map column.

    Each row is divided by its sum; a null probability counts as 0. The probabilities of names with
    equal keys (`label_keys`) are added up.

    Raises:
        UserError: a value is not a number, a label has no name, or there are over 1,000 labels.
    """
    cells = _struct_cells(column) if pa.types.is_struct(column.type) else _map_cells(column)
    _, first, column_of_label = np.unique(
        label_keys(cells.names).to_numpy(zero_copy_only=False),
        return_index=True,
        return_inverse=True,
    )
    names = cells.names.take(pa.array(first)).to_pylist()
    if len(names) > _MOST_LABELS:
        raise UserError(
            f"has probabilities for {len(names)} labels; at most {_MOST_LABELS:,} are allowed"
        )
    values = np.zeros((len(column), len(names)))
    np.add.at(values, (cells.rows, column_of_label[cells.labels]), cells.values)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = values.sum(1)
    bad = ~np.isfinite(sums)
    bad[cells.rows[~(cells.values >= 0)]] = True
    faults = pc.case_when(
        pc.make_struct(column.is_null(), pa.array(bad), pa.array(sums == 0)),
        *("no label", "a negative or infinite probability", "probabilities that are all 0"),
        pa.scalar(None, pa.string()),
    )
    values[faults.is_valid().to_numpy(zero_copy_only=False)] = 0
    return SoftLabels(tuple(names), _normalised(values), faults)


@dataclass(frozen=True)
class _Cells:
    """The entries of a column: `values` (float64) by row and by index into `names`."""

    names: pa.Array
    rows: np.ndarray
    labels: np.ndarray
    values: np.ndarray


def _struct_cells(column: pa.StructArray) -> _Cells:
    fields = [_numbers(values, column.type) for values in column.flatten()]
    num_rows = len(column)
    return _Cells(
        _named(pa.array([field.name for field in column.type], pa.string())),
        np.tile(np.arange(num_rows), len(fields)),
        np.repeat(np.arange(len(fields)), num_rows),
        np.concatenate([np.zeros(0), *fields]),
    )


def _map_cells(column: pa.MapArray) -> _Cells:
    if not pa.types.is_string(column.type.key_type):
        column = column.cast(pa.map_(pa.string(), column.type.item_type))
    starts = column.offsets.to_numpy()
    used = slice(starts[0], starts[-1])
    keys = column.keys[used].dictionary_encode()
    return _Cells(
        _named(keys.dictionary),
        np.repeat(np.arange(len(column)), np.diff(starts)),
        keys.indices.to_numpy(),
        _numbers(column.items[used], column.type),
    )


def _named(names: pa.Array) -> pa.Array:
    names = clean_names(names)
    if pc.any(pc.equal(names, "")).as_py():
        raise UserError("has a probability for a label without a name")
    return names


def _numbers(values: pa.Array, kind: pa.DataType) -> np.ndarray:
    numeric = (pa.types.is_integer, pa.types.is_floating, pa.types.is_decimal, pa.types.is_null)
    if not any(check(values.type) for check in numeric):
        raise UserError(f"has type {kind}; each label's probability must be a number")
    return np.asarray(values.cast(pa.float64()).fill_null(0).to_numpy(zero_copy_only=False))


def _normalised(values: np.ndarray) -> np.ndarray:
    sums = values.sum(1, keepdims=True)
    return np.asarray(np.divide(values, sums, out=np.zeros_like(values), where=sums > 0))
