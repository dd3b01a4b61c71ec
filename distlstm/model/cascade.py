"""Sparing the recurrent model the rows that its linear partner is sure of.

The partner costs a twentieth of the recurrent layers. Where its best label leads by far enough, its
answer is final (as in Viola and Jones 2001, Rapid Object Detection using a Boosted Cascade of
Simple Features).

Shape letters: B rows, C labels.
"""

from dataclasses import dataclass

import numpy as np

from distlstm.model.calibration import fit_weights, softmax
from distlstm.model.metrics import AllReduce, one_worker

_GRID = np.arange(1, 2_001) / 100
"""Leads are hundredths, so that sums over workers stay small."""


@dataclass(frozen=True)
class Cascade:
    """When the linear partner's answer is final; its logits are taken as they are in the model."""

    lead: float
    """How far the best label's logit must be above all others."""
    temperature: float
    """By which the logits are divided where the partner answers."""
    share: float
    """Of the validation rows, those that it answers."""

    def is_final(self, linear_logits: np.ndarray) -> np.ndarray:
        """Whether the partner answers, by row: [B, C] -> bool [B]."""
        return leads(linear_logits) >= self.lead

    def probabilities(self, linear_logits: np.ndarray) -> np.ndarray:
        """The partner's answers (float64 [B, C])."""
        return softmax(linear_logits / self.temperature)

    def applied(self, linear_logits: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """What is delivered ([B, C]) where both models together say `probabilities`."""
        delivered = probabilities.copy()
        final = self.is_final(linear_logits)
        delivered[final] = self.probabilities(linear_logits[final])
        return delivered


def leads(logits: np.ndarray) -> np.ndarray:
    """How far the best label's logit is above the second's, by row: [B, C] -> [B]."""
    others = logits.copy()
    np.put_along_axis(others, logits.argmax(1)[:, None], -np.inf, axis=1)
    return np.asarray(logits.max(1) - others.max(1))


def fit_cascade(
    linear_logits: np.ndarray,
    probabilities: np.ndarray,
    targets: np.ndarray,
    *,
    tolerance: float,
    all_reduce: AllReduce = one_worker,
) -> Cascade | None:
    """The cascade of the least lead that changes few enough labels of held-out rows.

    None if there is no such lead. `all_reduce` sums a vector over the workers, so that the rows of
    all workers count.

    Args:
        linear_logits: the partner's, [B, C].
        probabilities: what both models together say, [B, C].
        targets: the labels' probabilities, [B, C]; the temperature is fitted to them.
        tolerance: share of all rows whose label may change.
        all_reduce: adds a vector up over the workers.
    """
    reached = np.searchsorted(_GRID, leads(linear_logits), side="right")
    changed = linear_logits.argmax(1) != probabilities.argmax(1)
    cells = [np.bincount(some, minlength=len(_GRID) + 1) for some in (reached, reached[changed])]
    from_cell = np.flip(np.flip(np.stack(cells).astype(np.float64), 1).cumsum(1), 1)
    rows, changes = all_reduce(from_cell.ravel()).reshape(2, -1)
    good = np.flatnonzero((changes[1:] <= tolerance * rows[0]) & (rows[1:] > 0))
    if len(good) == 0:
        return None
    final = reached > good[0]
    weight = fit_weights(linear_logits[None, final], targets[final], all_reduce=all_reduce)[0]
    return Cascade(
        lead=float(_GRID[good[0]]),
        temperature=float(1 / weight),
        share=float(rows[1 + good[0]] / rows[0]),
    )
