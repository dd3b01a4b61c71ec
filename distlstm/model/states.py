"""The states of a recurrent layer, one direction apart from the other.

Shape letters: T tokens, B rows, D features, H state of one direction. Time comes first, as the
recurrent kernels take it: a step's rows lie side by side, and nothing is copied to be transposed.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class States(NamedTuple):
    """What both directions of a layer made of a batch, each in the order in which it reads.

    `forward_TBH` at t is the state after token t. `backward_TBH`, absent in a layer of one
    direction, at t is the state after the row's tokens from its last to the one t places before it.
    Past a row's length both hold nothing of use.
    """

    forward_TBH: Tensor
    backward_TBH: Tensor | None = None

    @property
    def directions(self) -> list[Tensor]:
        """One tensor or two."""
        return (
            [self.forward_TBH]
            if self.backward_TBH is None
            else [self.forward_TBH, self.backward_TBH]
        )

    def by_token(self, mirror_TB: Tensor) -> Tensor:
        """Both directions' states of the same token side by side: [T, B, H or 2H]."""
        if self.backward_TBH is None:
            return self.forward_TBH
        return torch.cat([self.forward_TBH, take_positions(self.backward_TBH, mirror_TB)], dim=2)


def mirror_index(lengths_B: Tensor, longest: int) -> Tensor:
    """For each position of each row, its mirror within the row's length; 0 for padding: [T, B]."""
    positions_T = torch.arange(longest, device=lengths_B.device)
    return (lengths_B - 1 - positions_T[:, None]).clamp(min=0)


def take_positions(values_TBD: Tensor, index_NB: Tensor) -> Tensor:
    """Each row's values at N positions of its own: [N, B, D].

    Copies whole vectors, which on a CPU is many times faster than `torch.gather`.
    """
    tokens, rows, features = values_TBD.shape
    columns_B = torch.arange(rows, device=index_NB.device)
    flat = values_TBD.reshape(tokens * rows, features)
    return flat.index_select(0, (index_NB * rows + columns_B).flatten()).view(-1, rows, features)
