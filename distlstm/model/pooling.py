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
        positions = torch.arange(states_BTH.shape[1], device=states_BTH.device)
        mask_BT1 = (positions < lengths_B[:, None])[..., None]
        views = {
            "last": lambda: self._last(states_BTH, lengths_B),
            "max": lambda: states_BTH.masked_fill(~mask_BT1, -torch.inf).amax(1),
            "mean": lambda: (states_BTH * mask_BT1).sum(1) / lengths_B[:, None],
            "attention": lambda: self._attention(states_BTH, mask_BT1),
        }
        return torch.cat([views[kind]() for kind in self.kinds], dim=1)

    def _last(self, states_BTH: Tensor, lengths_B: Tensor) -> Tensor:
        rows = torch.arange(len(lengths_B), device=lengths_B.device)
        forward = states_BTH[rows, lengths_B - 1, : self.forward_dim]
        return torch.cat([forward, states_BTH[:, 0, self.forward_dim :]], dim=1)

    def _attention(self, states_BTH: Tensor, mask_BT1: Tensor) -> Tensor:
        scores_BT1 = self.score(torch.tanh(self.key(states_BTH)))
        weights_BT1 = scores_BT1.masked_fill(~mask_BT1, -torch.inf).softmax(1)
        pooled: Tensor = (states_BTH * weights_BT1).sum(1)
        return pooled
