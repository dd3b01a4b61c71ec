"""Sparse matrices whose products with dense ones are fast on every torch device.

Shape letters: R rows, W width, Z non-zero cells.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix [R, W] by rows, in the layout of the bags of `torch.nn.EmbeddingBag`.

    Row r is `columns` (int32 [Z]) and `values` (float32 [Z]) from `offsets[r]` up to
    `offsets[r + 1]` (int32 [R + 1]). A torch CSR tensor would warn that it is in beta, and its
    product takes two to four times as long for twenty labels.
    """

    columns: Tensor
    values: Tensor
    offsets: Tensor
    width: int

    @classmethod
    def concatenate(cls, parts: Sequence["SparseRows"], width: int) -> Self:
        """The rows of all parts, in order; no rows if there are no parts."""
        lengths = [part.offsets.diff() for part in parts]
        return cls(
            torch.cat([torch.zeros(0, dtype=torch.int32), *(part.columns for part in parts)]),
            torch.cat([torch.zeros(0), *(part.values for part in parts)]),
            F.pad(torch.cat([torch.zeros(0, dtype=torch.int32), *lengths]).cumsum(0), (1, 0)).int(),
            width,
        )

    def times(self, dense: Tensor) -> Tensor:
        """The product with a dense matrix: [R, W] x [W, C] -> [R, C]."""
        return F.embedding_bag(
            self.columns,
            dense,
            self.offsets,
            mode="sum",
            per_sample_weights=self.values,
            include_last_offset=True,
        )

    def transposed(self) -> "SparseRows":
        """The transposed matrix: [W, R]."""
        order = self.columns.argsort(stable=True)
        rows = torch.repeat_interleave(self.offsets.diff()).int()
        starts = starts_of(self.columns, self.width)
        return SparseRows(rows[order], self.values[order], starts, len(self.offsets) - 1)


def starts_of(groups: Tensor, count: int) -> Tensor:
    """The start of each of `count` groups, once sorted by group, and the end of the last."""
    return F.pad(torch.bincount(groups, minlength=count).cumsum(0), (1, 0)).int()
