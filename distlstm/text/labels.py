"""The labels of a model, and their ids."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

UNKNOWN_LABEL = -1


@dataclass(frozen=True)
class LabelSet:
    """Labels by label id: `names[i]` is the label of label id i."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, names: Iterable[str]) -> Self:
        """Distinct labels in a fixed order: numeric if all are whole numbers, else by name."""
        distinct = set(names)
        try:
            return cls(tuple(sorted(distinct, key=lambda name: (int(name), name))))
        except ValueError:
            return cls(tuple(sorted(distinct)))

    def __len__(self) -> int:
        return len(self.names)

    def ids_of(self, labels: pa.Array) -> pa.Array:
        """The label id (int32) of each label; -1 for null and for other labels."""
        names = pa.array(self.names, pa.string())
        return pc.fill_null(pc.index_in(labels, value_set=names, skip_nulls=True), UNKNOWN_LABEL)

    def members_of(self, sets: pa.ListArray) -> np.ndarray:
        """1 where a row's set has the label, else 0 (float32, [rows, C]); ignores other labels."""
        ids = self.ids_of(pc.list_flatten(sets)).to_numpy(zero_copy_only=False)
        rows = pc.list_parent_indices(sets).to_numpy(zero_copy_only=False)
        members = np.zeros((len(sets), len(self)), np.float32)
        known = ids != UNKNOWN_LABEL
        members[rows[known], ids[known]] = 1
        return members


def one_hot(label_ids: np.ndarray, num_labels: int) -> np.ndarray:
    """One-hot rows: probability 1 for the label id of each row (float32, [rows, C])."""
    targets = np.zeros((len(label_ids), num_labels), np.float32)
    targets[np.arange(len(label_ids)), label_ids] = 1
    return targets
