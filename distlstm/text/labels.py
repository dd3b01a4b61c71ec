"""The labels a model tells apart."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

UNKNOWN_LABEL = -1


@dataclass(frozen=True)
class LabelSet:
    """Labels by label id: `names[i]` is the label of label id i."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, names: Iterable[str]) -> Self:
        """Distinct labels in a fixed order: by number if all are whole numbers, else by name."""
        distinct = set(names)
        try:
            return cls(tuple(sorted(distinct, key=lambda name: (int(name), name))))
        except ValueError:
            return cls(tuple(sorted(distinct)))

    def __len__(self) -> int:
        return len(self.names)

    def ids_of(self, labels: pa.Array) -> pa.Array:
        """The label id (int32) of each label; -1 for null and for labels not in the set."""
        names = pa.array(self.names, pa.string())
        return pc.fill_null(pc.index_in(labels, value_set=names, skip_nulls=True), UNKNOWN_LABEL)
