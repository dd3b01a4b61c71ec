"""The labels of a model, and their ids."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distlstm.text.normalization import clean_names

UNKNOWN_LABEL = -1
_SPELLINGS = (
    (r"^(-?(?:0|[1-9][0-9]*))\.0+$", r"\1"),  # 1.0 -> 1, but neither 01 nor 1e3
    (r"^-0$", "0"),
    (r"^(?:True|TRUE)$", "true"),
    (r"^(?:False|FALSE)$", "false"),
)
"""Patterns of what the types of files make of one label, and what they are compared as."""


def label_keys(labels: pa.Array) -> pa.Array:
    """What labels are compared by (string, [rows]): labels with equal keys are one label.

    Files of different types spell a label differently: `1` and `1.0`, `true` and `True`.
    """
    keys = clean_names(labels)
    for pattern, spelling in _SPELLINGS:
        keys = pc.replace_substring_regex(keys, pattern=pattern, replacement=spelling)
    return keys


@dataclass(frozen=True)
class LabelSet:
    """Labels by label id: `names[i]` is the label of label id i."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, names: Iterable[str], *, kept: Sequence[str] = ()) -> Self:
        """Distinct labels in a fixed order: numeric if all are whole numbers, else by name.

        Of names with equal keys, the first by name is the label. The names in `kept` all stay, and
        precede others with their key.
        """
        ordered, kept_keys = sorted(set(names)), set(_keys_of(kept))
        first: dict[str, str] = {}
        for name, key in zip(ordered, _keys_of(ordered), strict=True):
            first.setdefault(key, name)
        distinct = {*kept, *(name for key, name in first.items() if key not in kept_keys)}
        try:
            return cls(tuple(sorted(distinct, key=lambda name: (int(name), name))))
        except ValueError:
            return cls(tuple(sorted(distinct)))

    def __len__(self) -> int:
        return len(self.names)

    def ids_of(self, labels: pa.Array) -> pa.Array:
        """The label id (int32) of each label; -1 for null and for other labels.

        A label that is not among the names has the id of the first name with its key.
        """
        encoded = labels.dictionary_encode()
        distinct, names = encoded.dictionary, pa.array(self.names, pa.string())
        ids = pc.coalesce(
            pc.index_in(distinct, value_set=names, skip_nulls=True),
            pc.index_in(label_keys(distinct), value_set=label_keys(names), skip_nulls=True),
        )
        return pc.fill_null(ids.take(encoded.indices), UNKNOWN_LABEL)

    def members_of(self, sets: pa.ListArray) -> np.ndarray:
        """1 where a row's set has the label, else 0 (float32, [rows, C]); ignores other labels."""
        ids = self.ids_of(pc.list_flatten(sets)).to_numpy(zero_copy_only=False)
        rows = pc.list_parent_indices(sets).to_numpy(zero_copy_only=False)
        members = np.zeros((len(sets), len(self)), np.float32)
        known = ids != UNKNOWN_LABEL
        members[rows[known], ids[known]] = 1
        return members


def listed(labels: Sequence[str]) -> str:
    """The first five labels as text, for messages."""
    return ", ".join(map(repr, labels[:5])) + (", ..." if len(labels) > 5 else "")


def _keys_of(names: Sequence[str]) -> list[str]:
    keys: list[str] = label_keys(pa.array(names, pa.string())).to_pylist()
    return keys


def one_hot(label_ids: np.ndarray, num_labels: int) -> np.ndarray:
    """One-hot rows: probability 1 for the label id of each row (float32, [rows, C])."""
    targets = np.zeros((len(label_ids), num_labels), np.float32)
    targets[np.arange(len(label_ids)), label_ids] = 1
    return targets
