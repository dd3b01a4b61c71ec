"""AdamW for an embedding, at the cost of the rows that a step uses and not of all rows.

The rule is that of `torch.optim.AdamW` with a dense gradient. There, a row that a step does not use
has a gradient of zero: its weights and moments decay, and its momentum still moves it noticeably
for some twenty steps. Here, such a row is left alone, and the steps that it has missed are applied
when it is next used. Let m and v be its moments when it was last used, r the rate of step i,
d = 1 - r * decay and c = r * sqrt(1 - beta2^i) / (1 - beta1^i). Then the j-th missed step is

    w = d w - c (beta1 / sqrt(beta2))^j m / (sqrt(v) + epsilon)

All missed steps together are one factor for w and one for m / sqrt(v). Both are kept up to date for
all rows, by a few operations on vectors of length V. (There is one difference from the dense rule:
epsilon shrinks with v.)

Shape letters: V tokens of the vocabulary, U of them used, D embedding.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim.adamw import adamw

_EPSILON = 1e-8
_SMALLEST = 1e-30
"""Lower limit of powers: below 1e-38 (denormal numbers), arithmetic is a hundred times slower."""
_ROWS_AT_ONCE = 8_192


@dataclass(frozen=True)
class UsedRows:
    """The rows that a step uses. `ids` is int64 [U], sorted; the others are float32 [U, D]."""

    ids: Tensor
    weights: Tensor
    """Up to date; a leaf, which gets a gradient if it requires one."""
    means: Tensor
    squares: Tensor

    def index_of(self, token_ids: Tensor) -> Tensor:
        """The indices of tokens among these rows; all tokens must be among them."""
        return torch.searchsorted(self.ids, token_ids)


class RowAdamW:
    """The weights of an embedding and their moments; a step changes only the rows that it uses."""

    def __init__(self, weights: Tensor, *, betas: tuple[float, float], weight_decay: float) -> None:
        """Start with moments of zero. Steps change `weights` [V, D] in place."""
        self.weights = weights.detach()
        self.betas = betas
        self.weight_decay = weight_decay
        self.means = torch.zeros_like(self.weights)
        self.squares = torch.zeros_like(self.weights)
        self.steps = 0
        self._forget_missed()

    def _forget_missed(self) -> None:
        """Treat all rows as up to date."""
        self._last_steps = torch.full_like(self.weights[:, 0], self.steps)
        self._decays = torch.ones_like(self._last_steps)
        self._powers = torch.ones_like(self._last_steps)
        self._pushes = torch.zeros_like(self._last_steps)

    def take(self, ids: Tensor) -> UsedRows:
        """The rows of these tokens (int64 [U], distinct), after the steps that they have missed."""
        tables = self.weights, self.means, self.squares
        weights, means, squares = (table.index_select(0, ids) for table in tables)
        missed = (self.steps - self._last_steps[ids])[:, None]
        pushes = means * -self._pushes[ids, None]
        weights.mul_(self._decays[ids, None]).addcdiv_(pushes, squares.sqrt().add_(_EPSILON))
        means.mul_(self.betas[0] ** missed)
        squares.mul_(self.betas[1] ** missed)
        return UsedRows(ids, weights, means, squares)

    def step(self, used: UsedRows, *, rate: float) -> None:
        """Update the rows taken last; all others miss this step. No effect without a gradient."""
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
        """Store rows and mark them as up to date."""
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
        """The state besides the weights, at any step."""
        return {
            "means": self.means,
            "squares": self.squares,
            "steps": torch.tensor(self.steps),
            "last_steps": self._last_steps,
            "decays": self._decays,
            "powers": self._powers,
            "pushes": self._pushes,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore such a state; the caller restores the weights."""
        self.means.copy_(state["means"])
        self.squares.copy_(state["squares"])
        self.steps = int(state["steps"])
        self._last_steps.copy_(state["last_steps"])
        self._decays.copy_(state["decays"])
        self._powers.copy_(state["powers"])
        self._pushes.copy_(state["pushes"])
