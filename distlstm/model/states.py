"""The states of a recurrent layer, each direction separately.

Shape letters: T tokens, B rows, D features, H state of one direction. Time is the first axis, as in
the recurrent kernels: the rows of a time step are adjacent, and no transpose copies anything.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class States(NamedTuple):
    """The states of both directions for a batch, each in its reading order.

    `forward_TBH[t]` is the state after token t. `backward_TBH[t]` is the state after the tokens
    from the row's last to the one t places before it; it is None in a layer of one direction. Past
    a row's length, both are meaningless.
    """

    forward_TBH: Tensor
    backward_TBH: Tensor | None = None

    @property
    def directions(self) -> list[Tensor]:
        """The tensor of each direction: one or two."""
        return (
            [self.forward_TBH]
            if self.backward_TBH is None
            else [self.forward_TBH, self.backward_TBH]
        )

    def by_token(self, mirror_TB: Tensor) -> Tensor:
        """The states by token, those of both directions concatenated: [T, B, H or 2H]."""
        if self.backward_TBH is None:
            return self.forward_TBH
        return torch.cat([self.forward_TBH, take_positions(self.backward_TBH, mirror_TB)], dim=2)


def mirror_index(lengths_B: Tensor, longest: int) -> Tensor:
    """The mirror image of each position within its row's length; 0 for padding: [T, B]."""
    positions_T = torch.arange(longest, device=lengths_B.device)
    return (lengths_B - 1 - positions_T[:, None]).clamp(min=0)


def take_positions(values_TBD: Tensor, index_NB: Tensor) -> Tensor:
    """The values of each row at N positions of its own: [N, B, D].

    It copies whole vectors, which is many times faster than `torch.gather` on a CPU.
    """
    tokens, rows, features = values_TBD.shape
    columns_B = torch.arange(rows, device=index_NB.device)
    flat = values_TBD.reshape(tokens * rows, features)
    return flat.index_select(0, (index_NB * rows + columns_B).flatten()).view(-1, rows, features)
