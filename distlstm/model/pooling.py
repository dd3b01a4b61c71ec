"""Pooling: the states of a text's tokens become one vector. Padding never takes part.

Shape letters: B rows, T tokens, H state length (both directions together), P pooled length.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distlstm.config import Pooling


class MaskedPooling(nn.Module):
    """Concatenation of pooled views of the states.

    `last` is each direction's final state: the forward one after the last token, the backward one
    after the first. `max` and `mean` run over the tokens. `attention` is a mean weighted by a
    learnt score of each token (Yang et al. 2016, Hierarchical Attention Networks).
    """

    def __init__(self, kinds: Sequence[Pooling], state_dim: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.kinds = tuple(kinds)
        self.forward_dim = state_dim // 2 if bidirectional else state_dim
        self.output_dim = state_dim * len(self.kinds)
        if "attention" in self.kinds:
            self.key = nn.Linear(state_dim, state_dim)
            self.score = nn.Linear(state_dim, 1, bias=False)

    def forward(self, states_BTH: Tensor, lengths_B: Tensor) -> Tensor:
        """Pool [B, T, H] to [B, P]."""
        positions_T = torch.arange(states_BTH.shape[1], device=states_BTH.device)
        real_BT = positions_T < lengths_B[:, None]
        views = {
            "last": lambda: self._last(states_BTH, lengths_B),
            "max": lambda: _max(states_BTH, lengths_B, positions_T),
            "mean": lambda: _weighted_sum(states_BTH, real_BT / lengths_B[:, None]),
            "attention": lambda: _weighted_sum(states_BTH, self._attention(states_BTH, real_BT)),
        }
        return torch.cat([views[kind]() for kind in self.kinds], dim=1)

    def _last(self, states_BTH: Tensor, lengths_B: Tensor) -> Tensor:
        rows = torch.arange(len(lengths_B), device=lengths_B.device)
        forward = states_BTH[rows, lengths_B - 1, : self.forward_dim]
        return torch.cat([forward, states_BTH[:, 0, self.forward_dim :]], dim=1)

    def _attention(self, states_BTH: Tensor, real_BT: Tensor) -> Tensor:
        scores_BT = self.score(torch.tanh(self.key(states_BTH))).squeeze(2).float()
        weights_BT: Tensor = scores_BT.masked_fill(~real_BT, -torch.inf).softmax(1)
        return weights_BT


def take_positions(values_BTD: Tensor, index_BT: Tensor) -> Tensor:
    """Each row's values at these positions of its own: [B, T, D].

    Copies whole vectors, which on a CPU is many times faster than `torch.gather`.
    """
    rows, tokens, features = values_BTD.shape
    starts_B1 = torch.arange(rows, device=index_BT.device)[:, None] * tokens
    flat = values_BTD.reshape(rows * tokens, features)
    return flat.index_select(0, (starts_B1 + index_BT).flatten()).view_as(values_BTD)


def _max(states_BTH: Tensor, lengths_B: Tensor, positions_T: Tensor) -> Tensor:
    """The maximum over a row's tokens; where there is padding, its last state stands again."""
    return take_positions(states_BTH, positions_T.minimum(lengths_B[:, None] - 1)).amax(1)


def _weighted_sum(states_BTH: Tensor, weights_BT: Tensor) -> Tensor:
    return torch.bmm(weights_BT[:, None].to(states_BTH.dtype), states_BTH).squeeze(1)
