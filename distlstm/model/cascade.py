"""Early exit (cascade): the linear model answers confident rows alone, without the LSTM.

The linear model costs a twentieth of the recurrent layers. If the logit of its best label leads by
enough, its answer is final (as in Viola and Jones 2001, Rapid Object Detection using a Boosted
Cascade of Simple Features).

Shape letters: B rows, C labels.
"""

from dataclasses import dataclass

import numpy as np

from distlstm.model.calibration import fit_weights, softmax
from distlstm.model.metrics import AllReduce, one_worker

_GRID = np.arange(1, 2_001) / 100
"""Candidate leads, in hundredths, so that the all-reduce stays small."""


@dataclass(frozen=True)
class Cascade:
    """When the answer of the linear model is final. Its logits include the ensemble weight."""

    lead: float
    """How far the best label's logit must be above all others."""
    temperature: float
    """The logits are divided by it if the linear model answers alone."""
    share: float
    """Share of the validation rows that the linear model answers alone."""

    def is_final(self, linear_logits: np.ndarray) -> np.ndarray:
        """Whether the linear model answers alone, by row: [B, C] -> bool [B]."""
        return leads(linear_logits) >= self.lead

    def probabilities(self, linear_logits: np.ndarray) -> np.ndarray:
        """The answers of the linear model (float64 [B, C])."""
        return softmax(linear_logits / self.temperature)

    def applied(self, linear_logits: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Replace the `probabilities` [B, C] of both models in rows whose answer is final."""
        result = probabilities.copy()
        final = self.is_final(linear_logits)
        result[final] = self.probabilities(linear_logits[final])
        return result


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
    """Find the smallest lead that changes at most a `tolerance` share of the labels.

    Returns None if there is no such lead.

    Args:
        linear_logits: of the linear model for held-out rows, [B, C].
        probabilities: of both models together, [B, C].
        targets: the label probabilities, [B, C], to which the temperature is fitted.
        tolerance: share of all rows whose label may change.
        all_reduce: sums a vector over the workers, so that the rows of all workers count.
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
