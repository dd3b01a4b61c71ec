"""Detects that a training has diverged, and keeps the state from which it restarts.

A training has diverged if its loss, gradient norm or validation loss is not finite, or if the mean
training loss of an epoch after the warm-up is above 10 ln(num_classes): ten times the loss of
uniform predictions.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.optim import Optimizer

from distlstm.model.row_adamw import RowAdamW

RATE_AFTER = 0.25
"""Factor of the learning rate with which a diverged training restarts."""
_LOSS_LIMIT = 10.0


class DivergenceError(Exception):
    """Training has diverged; the message has the value that shows it."""


@dataclass(frozen=True)
class GoodState:
    """Copies of weights and optimizer states, from the start or the end of an epoch."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    embedding: dict[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module, optimizer: Optimizer, embedding: RowAdamW) -> "GoodState":
        """Copy the current state."""
        parts = model, optimizer, embedding
        return cls(*(copy.deepcopy(part.state_dict()) for part in parts))

    def put_back(self, model: nn.Module, optimizer: Optimizer, embedding: RowAdamW) -> None:
        """Restore the copied state."""
        model.load_state_dict(self.weights)
        optimizer.load_state_dict(copy.deepcopy(self.optimizer))
        embedding.load_state_dict(self.embedding)


def check_finite(what: str, values: np.ndarray, *, step: int) -> None:
    """Check that values, which must be the same on all workers, are finite.

    Raises:
        DivergenceError: a value is not finite.
    """
    if not np.isfinite(values).all():
        raise DivergenceError(f"{what} is not finite at step {step + 1}")


def check_loss(loss: float, *, num_classes: int) -> None:
    """Check that the mean training loss of an epoch is not too high.

    Raises:
        DivergenceError: it is above the limit.
    """
    limit = _LOSS_LIMIT * math.log(max(2, num_classes))
    if loss > limit:
        raise DivergenceError(f"the training loss is {loss:.3g}, above {limit:.3g}")
