"""Weights for the logits of one or more models, so that the probabilities are calibrated.

Dividing the logits of one model by a temperature does not change the predicted label, only its
probability (Guo et al. 2017, On Calibration of Modern Neural Networks). In an ensemble, each model
has such a factor, its ensemble weight.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from distlstm.model.metrics import AllReduce, one_worker

SCORE_BINS = 20
_INITIAL_WEIGHT, _MIN_WEIGHT, _MAX_WEIGHT = 0.5, 0.05, 20.0
_STEPS, _HALVINGS, _TOLERANCE, _DAMPING = 50, 20, 1e-10, 1e-9


def score_histogram(scores: np.ndarray) -> np.ndarray:
    """Number of rows by score, in 20 bins of equal width from 0 to 1 (int64)."""
    return np.histogram(scores, SCORE_BINS, (0, 1))[0]


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Independent probabilities (float64 [B, C]) of logits, without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(logits.astype(np.float64) / 2)))


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities (float64 [B, C]) of logits; each row sums to 1."""
    logits = logits.astype(np.float64)
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


class LossAt(NamedTuple):
    """A loss as a function of K ensemble weights, summed over rows.

    Its value, gradient [K] and Hessian [K, K] at a point.
    """

    loss: float
    slope: np.ndarray
    curvature: np.ndarray

    def summed(self, all_reduce: AllReduce) -> "LossAt":
        """The loss over the rows of all workers."""
        count = len(self.slope)
        sums = all_reduce(np.concatenate([[self.loss], self.slope, self.curvature.ravel()]))
        loss, slope, curvature = np.split(sums, [1, 1 + count])
        return LossAt(float(loss[0]), slope, curvature.reshape(count, count))


def cross_entropy(logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> LossAt:
    """Cross-entropy of the weighted sum of logits [K, B, C] with label probabilities [B, C]."""
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
    """Binary cross-entropy, for labels that are independent of each other."""
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
    """Find the weights [K] of K models' logits for which the weighted sum has the lowest loss.

    The loss is convex in the weights, and is minimised by Newton steps with step halving. Weights
    are from 0.05 to 20 for the first model, from 0 to 20 for the others. Without rows, the first
    weight is 1 and the others are 0.

    Args:
        logits: of held-out rows, [K, B, C].
        targets: the label probabilities of these rows, [B, C].
        loss_at: the loss to minimise.
        all_reduce: sums a vector over the workers, so that the rows of all workers count.
    """
    count = len(logits)
    if all_reduce(np.array([float(len(targets))]))[0] == 0:
        return np.asarray(np.eye(count)[0])
    logits = logits.astype(np.float64)
    least = np.where(np.arange(count) == 0, _MIN_WEIGHT, 0.0)
    weights = np.full(count, _INITIAL_WEIGHT)
    here = loss_at(logits, targets, weights).summed(all_reduce)
    for _ in range(_STEPS):
        free = (weights > least) | (here.slope < 0)
        step = np.zeros(count)
        step[free] = np.linalg.solve(
            here.curvature[np.ix_(free, free)] + _DAMPING * np.eye(free.sum()), -here.slope[free]
        )
        for halving in range(_HALVINGS):
            tried = np.clip(weights + step * 0.5**halving, least, _MAX_WEIGHT)
            there = loss_at(logits, targets, tried).summed(all_reduce)
            if there.loss <= here.loss:
                break
        else:
            break
        gained = here.loss - there.loss
        weights, here = tried, there
        if gained <= _TOLERANCE * abs(here.loss):
            break
    return weights
