"""Weighing logits so that a classifier's probabilities are honest, and partners speak as one.

Dividing logits by a temperature never changes which label is predicted, only how sure the model
says it is (Guo et al. 2017, On Calibration of Modern Neural Networks). With a second set of logits,
one more number says how much they count beside the first.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from distlstm.model.metrics import AllReduce, one_worker

SCORE_BINS = 20
_FIRST_WEIGHT, _LEAST_WEIGHT, _MOST_WEIGHT = 0.5, 0.05, 20.0
_STEPS, _HALVINGS, _ENOUGH, _DAMPING = 50, 20, 1e-10, 1e-9


def score_histogram(scores: np.ndarray) -> np.ndarray:
    """Rows by score, in 20 bins of equal width from 0 to 1 (int64)."""
    return np.histogram(scores, SCORE_BINS, (0, 1))[0]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities (float64 [B, C]), each by itself; nothing overflows."""
    return np.asarray(0.5 * (1 + np.tanh(logits.astype(np.float64) / 2)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (float64 [B, C]) that sum to 1 in each row."""
    logits = logits.astype(np.float64)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


class LossAt(NamedTuple):
    """A loss at K ensemble weights, summed over rows: its value, slope [K], curvature [K, K]."""

    loss: float
    slope: np.ndarray
    curvature: np.ndarray

    def summed(self, all_reduce: AllReduce) -> "LossAt":
        """The same over the rows of all workers."""
        count = len(self.slope)
        sums = all_reduce(np.concatenate([[self.loss], self.slope, self.curvature.ravel()]))
        loss, slope, curvature = np.split(sums, [1, 1 + count])
        return LossAt(float(loss[0]), slope, curvature.reshape(count, count))


def cross_entropy(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> LossAt:
    """Cross-entropy of weighted logits [K, B, C] against the labels' probabilities [B, C]."""
    scores = np.tensordot(weights, logits, axes=1)
    probabilities = softmax(scores)
    highest = scores.max(1, initial=-np.inf)
    partition = highest + np.log(np.exp(scores - highest[:, None]).sum(1))
    expected = np.einsum("bc,kbc->kb", probabilities, logits)
    slope = expected.sum(1) - np.einsum("bc,kbc->k", targets, logits)
    squares = np.einsum("bc,kbc,lbc->kl", probabilities, logits, logits, optimize=True)
    loss = partition.sum() - (targets * scores).sum()
    return LossAt(loss, slope, squares - expected @ expected.T)


def binary_cross_entropy(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> LossAt:
    """The same where each label is present or absent by itself."""
    scores = np.tensordot(weights, logits, axes=1)
    probabilities = sigmoid(scores)
    loss = np.logaddexp(0, scores).sum() - (targets * scores).sum()
    slope = np.einsum("bc,kbc->k", probabilities - targets, logits)
    spread = probabilities * (1 - probabilities)
    return LossAt(loss, slope, np.einsum("bc,kbc,lbc->kl", spread, logits, logits, optimize=True))


def fit_weights(
    logits: np.ndarray,
    targets: np.ndarray,
    *,
    loss_at: Callable[[np.ndarray, np.ndarray, np.ndarray], LossAt] = cross_entropy,
    all_reduce: AllReduce = one_worker,
) -> np.ndarray:
    """How much each of K models' logits count, [K]: the sum with the least log loss.

    The loss is convex in the weights: Newton steps, halved until they help, within 0.05 and 20 for
    the first model, 0 and 20 for the others. `all_reduce` sums a vector over the workers, so that
    the rows of all workers count. Without rows the first weight is 1, the others 0.

    Args:
        logits: of held-out rows, [K, B, C].
        targets: the labels' probabilities in these rows, [B, C]: the scores are to be as sure as
            whoever gave them.
        loss_at: the loss that the weights minimise.
        all_reduce: sums a vector over the workers.
    """
    count = len(logits)
    if all_reduce(np.array([float(len(targets))]))[0] == 0:
        return np.asarray(np.eye(count)[0])
    logits = logits.astype(np.float64)
    least = np.where(np.arange(count) == 0, _LEAST_WEIGHT, 0.0)
    weights = np.full(count, _FIRST_WEIGHT)
    here = loss_at(logits, targets, weights).summed(all_reduce)
    for _ in range(_STEPS):
        free = (weights > least) | (here.slope < 0)
        step = np.zeros(count)
        step[free] = np.linalg.solve(
            here.curvature[np.ix_(free, free)] + _DAMPING * np.eye(free.sum()), -here.slope[free]
        )
        for halving in range(_HALVINGS):
            tried = np.clip(weights + step * 0.5**halving, least, _MOST_WEIGHT)
            there = loss_at(logits, targets, tried).summed(all_reduce)
            if there.loss <= here.loss:
                break
        else:
            break
        gained = here.loss - there.loss
        weights, here = tried, there
        if gained <= _ENOUGH * abs(here.loss):
            break
    return weights
