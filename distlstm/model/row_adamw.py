"""AdamW for an embedding, at the cost of the rows that a step uses and not of all of them.

The rule is that of `torch.optim.AdamW` with a dense gradient, in which a row that a step does not
use has a gradient of zero: its weights decay, its moments do, and it goes on by its momentum, for
some twenty steps as far as a tenth of them use it. Here such a row is left alone, and what it has
missed is made up when it is next used. With m and v its moments when last used, and r the rate,
d = 1 - r * decay and c = r * sqrt(1 - beta2^i) / (1 - beta1^i) of step i, missing it means

    w = d w - c (beta1 / sqrt(beta2))^j m / (sqrt(v) + epsilon)        for the j-th step missed,

which is a factor to w and one to m / sqrt(v), and both are kept up to date for all rows by a few
operations on vectors as long as the vocabulary. (That epsilon shrinks as v does is the one
difference to the dense rule.)

Shape letters: V tokens of the vocabulary, U of them used, D embedding.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adamw import adamw

_EPSILON = 1e-8
_SMALLEST = 1e-30
"""Powers are kept above it: below 1e-38 arithmetic is a hundred times slower."""
_ROWS_AT_ONCE = 8_192


@dataclass(frozen=True)
class UsedRows:
    """The rows that a step uses. `ids` is int64 [U], sorted, the rest float32 [U, D]."""

    ids: Tensor
    weights: Tensor
    """Up to date; a leaf, which takes the gradient if it is asked to."""
    means: Tensor
    squares: Tensor

    def index_of(self, token_ids: Tensor) -> Tensor:
        """Where among the rows those of some tokens are; all of them must be among the rows."""
        return torch.searchsorted(self.ids, token_ids)


class RowAdamW:
    """An embedding's weights and their moments, of which each step changes the rows it used."""

    def __init__(self, weights: Tensor, *, betas: tuple[float, float], weight_decay: float) -> None:
        """Begin with moments of zero. `weights` [V, D] are changed in place from now on."""
        self.weights = weights.detach()
        self.betas = betas
        self.weight_decay = weight_decay
        self.means = torch.zeros_like(self.weights)
        self.squares = torch.zeros_like(self.weights)
        self.steps = 0
        self._forget_missed()

    def _forget_missed(self) -> None:
        """Take all rows for up to date."""
        self._last_steps = torch.full_like(self.weights[:, 0], self.steps)
        self._decays = torch.ones_like(self._last_steps)
        self._powers = torch.ones_like(self._last_steps)
        self._pushes = torch.zeros_like(self._last_steps)

    def take(self, ids: Tensor) -> UsedRows:
        """The rows of these tokens (int64 [U], each once), with the steps they have missed."""
        tables = self.weights, self.means, self.squares
        weights, means, squares = (table.index_select(0, ids) for table in tables)
        missed = (self.steps - self._last_steps[ids])[:, None]
        pushes = means * -self._pushes[ids, None]
        weights.mul_(self._decays[ids, None]).addcdiv_(pushes, squares.sqrt().add_(_EPSILON))
        means.mul_(self.betas[0] ** missed)
        squares.mul_(self.betas[1] ** missed)
        return UsedRows(ids, weights, means, squares)

    def step(self, used: UsedRows, *, rate: float) -> None:
        """A step of the rows taken last; all others miss it. Without a gradient there is none."""
        gradient, weights = used.weights.grad, used.weights.detach()
        if gradient is None:
            return
        adamw(
            [weights],
            [gradient],
            [used.means],
            [used.squares],
            [],
            [torch.tensor(float(self.steps), device=weights.device)],
            fused=True,
            amsgrad=False,
            beta1=self.betas[0],
            beta2=self.betas[1],
            lr=rate,
            weight_decay=self.weight_decay,
            eps=_EPSILON,
            maximize=False,
        )
        self._miss(rate)
        self._put(used)

    def _miss(self, rate: float) -> None:
        """Count a step as missed by all rows."""
        self.steps += 1
        beta1, beta2 = self.betas
        correction = math.sqrt(1 - beta2**self.steps) / (1 - beta1**self.steps)
        decay = 1 - rate * self.weight_decay
        self._decays.mul_(decay)
        self._powers.mul_(beta1 / math.sqrt(beta2)).clamp_(min=_SMALLEST)
        self._pushes.mul_(decay).add_(self._powers, alpha=rate * correction)

    def _put(self, used: UsedRows) -> None:
        """Keep rows as they are now, up to date."""
        self.weights.index_copy_(0, used.ids, used.weights.detach())
        self.means.index_copy_(0, used.ids, used.means)
        self.squares.index_copy_(0, used.ids, used.squares)
        self._last_steps.index_fill_(0, used.ids, self.steps)
        self._decays.index_fill_(0, used.ids, 1)
        self._powers.index_fill_(0, used.ids, 1)
        self._pushes.index_fill_(0, used.ids, 0)

    def catch_up(self) -> None:
        """Bring all rows up to date, so that the weights can be used elsewhere."""
        every = torch.arange(len(self.weights), device=self.weights.device)
        for ids in torch.split(every, _ROWS_AT_ONCE):
            self._put(self.take(ids))

    def state_dict(self) -> dict[str, Tensor]:
        """What besides the weights makes the state, of rows that are all up to date."""
        steps = torch.tensor(self.steps)
        return {"means": self.means, "squares": self.squares, "steps": steps}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over such a state; the weights are to be put back by themselves."""
        self.means.copy_(state["means"])
        self.squares.copy_(state["squares"])
        self.steps = int(state["steps"])
        self._forget_missed()
