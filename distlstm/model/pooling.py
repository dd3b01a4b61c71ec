"""Pooling: the states of a text's tokens become one vector; padding is ignored.

Shape letters: T tokens, B rows, H state of one direction, S state of a token (H or 2H), P pooled.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, FunctionCtx

from distlstm.config import Pooling
from distlstm.model.states import States, take_positions


class MaskedPooling(nn.Module):
    """Concatenation of pooled views of the states.

    `last` is the final state of each direction: of the forward direction after the last token, of
    the backward direction after the first. `max` and `mean` are over the tokens. `attention` is a
    mean weighted by a learnt score of each token (Yang et al. 2016, Hierarchical Attention
    Networks).
    """

    def __init__(self, kinds: Sequence[Pooling], state_dim: int) -> None:
        super().__init__()
        self.kinds = tuple(kinds)
        self.output_dim = state_dim * len(self.kinds)
        if "attention" in self.kinds:
            self.key = nn.Linear(state_dim, state_dim)
            self.score = nn.Linear(state_dim, 1, bias=False)

    def forward(self, states: States, lengths_B: Tensor, mirror_TB: Tensor) -> Tensor:
        """Pool the states of a batch to [B, P]. Only `attention` aligns the directions by token."""
        cut = [_Cut.where_rows_end(d_TBH, lengths_B) for d_TBH in states.directions]
        views = {
            "last": lambda: [_last(d_TBH, lengths_B) for d_TBH in states.directions],
            "max": lambda: [_max(each) for each in cut],
            "mean": lambda: [
                _mean(d_TBH, each, lengths_B)
                for d_TBH, each in zip(states.directions, cut, strict=True)
            ],
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


class _Cut(NamedTuple):
    """The states of a direction, cut where the shortest row ends."""

    whole: Tensor
    """Positions at which all rows have a token: [N, B, H]."""
    ends: Tensor
    """The other positions: [T - N, B, H]."""
    is_padding: Tensor
    """Where `ends` is padding: bool [T - N, B, 1]."""

    @classmethod
    def where_rows_end(cls, states_TBH: Tensor, lengths_B: Tensor) -> Self:
        """Cut at the shortest length: rows of a batch have similar lengths, so little is masked.

        On a GPU, reading the shortest length would wait for the device, so `ends` has all
        positions but the first.
        """
        shortest = int(lengths_B.min()) if lengths_B.device.type == "cpu" else 1
        whole, ends = torch.split(states_TBH, [shortest, len(states_TBH) - shortest])
        positions_N1 = torch.arange(shortest, len(states_TBH), device=lengths_B.device)[:, None]
        return cls(whole, ends, (positions_N1 >= lengths_B)[:, :, None])


def _mean(states_TBH: Tensor, cut: _Cut, lengths_B: Tensor) -> Tensor:
    """The mean over the tokens of each row.

    At inference all positions are added in one sum, whose result for a row does not depend on where
    the other rows end. Its padding is cleared in place, which needs no copy.
    """
    if torch.is_inference_mode_enabled():
        cut.ends.masked_fill_(cut.is_padding, 0)
        return states_TBH.sum(0) / lengths_B[:, None]
    ends = cut.ends.masked_fill(cut.is_padding, 0)
    return (cut.whole.sum(0) + ends.sum(0)) / lengths_B[:, None]


def _max(cut: _Cut) -> Tensor:
    most: Tensor = _MaxOverTokens.apply(cut.whole)  # type: ignore[no-untyped-call]
    if len(cut.ends) == 0:
        return most
    return most.maximum(cut.ends.masked_fill(cut.is_padding, -torch.inf).amax(0))


class _MaxOverTokens(torch.autograd.Function):
    """`amax(0)` with another backward pass: the built-in one takes three times as long on a CPU.

    In both, tokens that share the highest value share the gradient.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, states_TBH: Tensor) -> Tensor:
        most_BH = states_TBH.amax(0)
        ctx.save_for_backward(states_TBH, most_BH)
        return most_BH

    @staticmethod
    def backward(ctx: BackwardCFunction, gradient_BH: Tensor) -> Tensor:
        states_TBH, most_BH = ctx.saved_tensors  # type: ignore[misc]
        is_most_TBH = torch.sign(states_TBH - most_BH).add_(1)  # 1 at the maximum, else 0
        return is_most_TBH.mul_(gradient_BH / is_most_TBH.sum(0))
