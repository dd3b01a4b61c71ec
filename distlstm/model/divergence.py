"""When a training has diverged, and the state from which it is tried again.

It has diverged if the loss or the norm of the gradient is no finite number, if the validation loss
is none, or if the mean training loss of an epoch after the warm-up is above 10 ln(num_labels): ten
times that of a model that knows nothing.
"""

import copy
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor
from torch.optim import Optimizer

from distlstm.model.classifier import Classifier
from distlstm.model.row_adamw import RowAdamW

RATE_AFTER = 0.25
"""Share of the learning rate with which a training that diverged is tried again."""
_LOSS_LIMIT = 10.0


class DivergenceError(Exception):
    """Training has diverged; the message says how."""


@dataclass(frozen=True)
class GoodState:
    """Copies of weights and optimizers' states at the end of an epoch, or before any."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Any]
    embedding: dict[str, Tensor]

    @classmethod
    def of(cls, model: Classifier, optimizer: Optimizer, embedding: RowAdamW) -> "GoodState":
        """The state as it is."""
        parts = model, optimizer, embedding
        return cls(*(copy.deepcopy(part.state_dict()) for part in parts))

    def put_back(self, model: Classifier, optimizer: Optimizer, embedding: RowAdamW) -> None:
        """Make the state what it was."""
        model.load_state_dict(self.weights)
        optimizer.load_state_dict(copy.deepcopy(self.optimizer))
        embedding.load_state_dict(self.embedding)


def check_finite(what: str, values: np.ndarray, *, step: int) -> None:
    """See that figures which are the same on all workers are finite.

    Raises:
        DivergenceError: one is not.
    """
    if not np.isfinite(values).all():
        raise DivergenceError(f"{what} is no finite number at step {step + 1}")


def check_loss(loss: float, *, num_labels: int) -> None:
    """See that the mean loss of an epoch's training rows is not beyond all measure.

    Raises:
        DivergenceError: it is.
    """
    limit = _LOSS_LIMIT * math.log(max(2, num_labels))
    if loss > limit:
        raise DivergenceError(f"the training loss is {loss:.3g}, above {limit:.3g}")
