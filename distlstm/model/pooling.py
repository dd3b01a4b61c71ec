"""Pooling: the states of a text's tokens become one vector. Padding never takes part.

Shape letters: T tokens, B rows, H state of one direction, S state of a token (H or 2H), P pooled.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distlstm.config import Pooling
from distlstm.model.states import States, take_positions


class MaskedPooling(nn.Module):
    """Concatenation of pooled views of the states.

    `last` is each direction's final state: the forward one after the last token, the backward one
    after the first. `max` and `mean` run over the tokens. `attention` is a mean weighted by a
    learnt score of each token (Yang et al. 2016, Hierarchical Attention Networks).
    """

    def __init__(self, kinds: Sequence[Pooling], state_dim: int) -> None:
        super().__init__()
        self.kinds = tuple(kinds)
        self.output_dim = state_dim * len(self.kinds)
        if "attention" in self.kinds:
            self.key = nn.Linear(state_dim, state_dim)
            self.score = nn.Linear(state_dim, 1, bias=False)

    def forward(self, states: States, lengths_B: Tensor, mirror_TB: Tensor) -> Tensor:
        """Pool the states of a batch to [B, P]. Only `attention` looks at tokens by their place."""
        views = {
            "last": lambda: [_last(d_TBH, lengths_B) for d_TBH in states.directions],
            "max": lambda: [_max(d_TBH, lengths_B) for d_TBH in states.directions],
            "mean": lambda: [_mean(d_TBH, lengths_B) for d_TBH in states.directions],
            "attention": lambda: [self._attention(states.by_token(mirror_TB), lengths_B)],
        }
        return torch.cat([view for kind in self.kinds for view in views[kind]()], dim=1)

    def _attention(self, states_TBS: Tensor, lengths_B: Tensor) -> Tensor:
        scores_TB = self.score(torch.tanh(self.key(states_TBS))).squeeze(2).float()
        positions_T1 = torch.arange(len(states_TBS), device=lengths_B.device)[:, None]
        weights_TB = scores_TB.masked_fill(positions_T1 >= lengths_B, -torch.inf).softmax(0)
        pooled: Tensor = (weights_TB[:, :, None].to(states_TBS.dtype) * states_TBS).sum(0)
        return pooled


def _last(states_TBH: Tensor, lengths_B: Tensor) -> Tensor:
    return take_positions(states_TBH, lengths_B[None] - 1).squeeze(0)


def _mean(states_TBH: Tensor, lengths_B: Tensor) -> Tensor:
    whole, ends, is_padding = _where_rows_end(states_TBH, lengths_B)
    return (whole.sum(0) + ends.masked_fill(is_padding, 0).sum(0)) / lengths_B[:, None]


def _max(states_TBH: Tensor, lengths_B: Tensor) -> Tensor:
    whole, ends, is_padding = _where_rows_end(states_TBH, lengths_B)
    if len(ends) == 0:
        return whole.amax(0)
    return whole.amax(0).maximum(ends.masked_fill(is_padding, -torch.inf).amax(0))


def _where_rows_end(states_TBH: Tensor, lengths_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Cut where the shortest row ends: states that all are tokens, the rest, and its padding.

    Rows of a batch are of like length, so on a CPU little is left to be masked. A GPU would have to
    be waited for to learn the shortest length: there all but the first position count as the rest.
    """
    shortest = int(lengths_B.min()) if lengths_B.device.type == "cpu" else 1
    positions_N1 = torch.arange(shortest, len(states_TBH), device=lengths_B.device)[:, None]
    return states_TBH[:shortest], states_TBH[shortest:], (positions_N1 >= lengths_B)[:, :, None]
