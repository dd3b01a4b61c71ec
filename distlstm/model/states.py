"""The states of a recurrent layer, one direction apart from the other.

Shape letters: B rows, T tokens, D features, H state of one direction.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class States(NamedTuple):
    """What both directions of a layer made of a batch, each in the order in which it reads.

    `ahead_BTH` at t is the state after token t. `back_BTH`, absent in a layer of one direction, at
    t is the state after the row's tokens from its last to the one t places before it. Past a row's
    length both hold nothing of use.
    """

    ahead_BTH: Tensor
    back_BTH: Tensor | None = None

    @property
    def directions(self) -> list[Tensor]:
        """One tensor or two."""
        return [self.ahead_BTH] if self.back_BTH is None else [self.ahead_BTH, self.back_BTH]

    def by_token(self, mirror_BT: Tensor) -> Tensor:
        """Both directions' states of the same token side by side: [B, T, H or 2H]."""
        if self.back_BTH is None:
            return self.ahead_BTH
        return torch.cat([self.ahead_BTH, take_positions(self.back_BTH, mirror_BT)], dim=2)


def mirror_index(lengths_B: Tensor, longest: int) -> Tensor:
    """For each position of each row, its mirror within the row's length; 0 for padding: [B, T]."""
    positions_T = torch.arange(longest, device=lengths_B.device)
    return (lengths_B[:, None] - 1 - positions_T).clamp(min=0)


def take_positions(values_BTD: Tensor, index_BN: Tensor) -> Tensor:
    """Each row's values at N positions of its own: [B, N, D].

    Copies whole vectors, which on a CPU is many times faster than `torch.gather`.
    """
    rows, tokens, features = values_BTD.shape
    starts_B1 = torch.arange(rows, device=index_BN.device)[:, None] * tokens
    flat = values_BTD.reshape(rows * tokens, features)
    return flat.index_select(0, (starts_B1 + index_BN).flatten()).view(rows, -1, features)
