"""Pooling: the states of a text's tokens become one vector. Padding never takes part.

Shape letters: B rows, T tokens, H state of one direction, S state of a token (H or 2H), P pooled.
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

    def forward(self, states: States, lengths_B: Tensor, mirror_BT: Tensor) -> Tensor:
        """Pool the states of a batch to [B, P]. Only `attention` looks at tokens by their place."""
        views = {
            "last": lambda: [_last(d_BTH, lengths_B) for d_BTH in states.directions],
            "max": lambda: [_max(d_BTH, lengths_B) for d_BTH in states.directions],
            "mean": lambda: [_mean(d_BTH, lengths_B) for d_BTH in states.directions],
            "attention": lambda: [self._attention(states.by_token(mirror_BT), lengths_B)],
        }
        return torch.cat([view for kind in self.kinds for view in views[kind]()], dim=1)

    def _attention(self, states_BTS: Tensor, lengths_B: Tensor) -> Tensor:
        scores_BT = self.score(torch.tanh(self.key(states_BTS))).squeeze(2).float()
        padding_BT = ~_is_token(states_BTS, lengths_B)
        return _weighted_sum(states_BTS, scores_BT.masked_fill(padding_BT, -torch.inf).softmax(1))


def _last(states_BTH: Tensor, lengths_B: Tensor) -> Tensor:
    return take_positions(states_BTH, lengths_B[:, None] - 1).squeeze(1)


def _mean(states_BTH: Tensor, lengths_B: Tensor) -> Tensor:
    return _weighted_sum(states_BTH, _is_token(states_BTH, lengths_B) / lengths_B[:, None])


def _max(states_BTH: Tensor, lengths_B: Tensor) -> Tensor:
    """Where some rows have ended, their last state stands again, so that no mask is needed.

    Rows of a batch are of like length: on a CPU, only the few positions at the end are looked at
    so; on a GPU, asking for the shortest length would mean to wait for it.
    """
    longest = states_BTH.shape[1]
    shortest = int(lengths_B.min()) if lengths_B.device.type == "cpu" else 0
    positions_N = torch.arange(shortest, longest, device=states_BTH.device)
    ends = take_positions(states_BTH, positions_N.minimum(lengths_B[:, None] - 1))
    parts = [part for part in (states_BTH[:, :shortest], ends) if part.shape[1]]
    return torch.stack([part.amax(1) for part in parts]).amax(0)


def _is_token(states_BTH: Tensor, lengths_B: Tensor) -> Tensor:
    positions_T = torch.arange(states_BTH.shape[1], device=states_BTH.device)
    return positions_T < lengths_B[:, None]


def _weighted_sum(states_BTH: Tensor, weights_BT: Tensor) -> Tensor:
    return torch.bmm(weights_BT[:, None].to(states_BTH.dtype), states_BTH).squeeze(1)
