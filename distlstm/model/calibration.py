"""Weighing logits so that a classifier's probabilities are honest, and partners speak as one.

Dividing logits by a temperature never changes which label is predicted, only how sure the model
says it is (Guo et al. 2017, On Calibration of Modern Neural Networks). With a second set of logits,
one more number says how much they count beside the first.
"""

from collections.abc import Callable

import numpy as np

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


def fit_weights(
    logits: np.ndarray,
    targets: np.ndarray,
    *,
    independent: bool = False,
    all_reduce: Callable[[np.ndarray], np.ndarray] = lambda vector: vector,
) -> np.ndarray:
    """How much each of K models' logits count, [K]: the sum with the least log loss.

    The loss is convex in the weights: Newton steps, halved until they help, within 0.05 and 20 for
    the first model, 0 and 20 for the others. `all_reduce` sums a vector over the workers, so that
    the rows of all workers count. Without rows the first weight is 1, the others 0.

    Args:
        logits: of held-out rows, [K, B, C].
        targets: the labels' probabilities in these rows, [B, C]: the scores are to be as sure as
            whoever gave them.
        independent: whether each label is there or not by itself, not one of them.
        all_reduce: adds a vector up over the workers.
    """
    count = len(logits)
    if all_reduce(np.array([float(len(targets))]))[0] == 0:
        return np.asarray(np.eye(count)[0])
    logits = logits.astype(np.float64)
    least = np.where(np.arange(count) == 0, _LEAST_WEIGHT, 0.0)
    weights = np.full(count, _FIRST_WEIGHT)
    measure = _independent_loss if independent else _loss

    def measured(weights: np.ndarray) -> tuple[float, np.ndarray, np.ndarray]:
        loss, slope, curvature = measure(logits, targets, weights)
        sums = all_reduce(np.concatenate([[loss], slope, curvature.ravel()]))
        return float(sums[0]), sums[1 : 1 + count], sums[1 + count :].reshape(count, count)

    loss, slope, curvature = measured(weights)
    for _ in range(_STEPS):
        free = (weights > least) | (slope < 0)
        step = np.zeros(count)
        step[free] = np.linalg.solve(
            curvature[np.ix_(free, free)] + _DAMPING * np.eye(free.sum()), -slope[free]
        )
        for halving in range(_HALVINGS):
            tried = np.clip(weights + step * 0.5**halving, least, _MOST_WEIGHT)
            found = measured(tried)
            if found[0] <= loss:
                break
        else:
            break
        gained = loss - found[0]
        weights, (loss, slope, curvature) = tried, found
        if gained <= _ENOUGH * abs(loss):
            break
    return weights


def _loss(
    logits: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Cross-entropy, its slope [K] and its curvature [K, K]."""
    scores = np.tensordot(weights, logits, axes=1)
    probabilities = softmax(scores)
    highest = scores.max(1, initial=-np.inf)
    partition = highest + np.log(np.exp(scores - highest[:, None]).sum(1))
    expected = np.einsum("bc,kbc->kb", probabilities, logits)
    slope = expected.sum(1) - np.einsum("bc,kbc->k", targets, logits)
    squares = np.einsum("bc,kbc,lbc->kl", probabilities, logits, logits, optimize=True)
    return partition.sum() - (targets * scores).sum(), slope, squares - expected @ expected.T


def _independent_loss(
    logits: np.ndarray, targets: np.ndarray, weights: np.ndarray
) -> tuple[float, np.ndarray, np.ndarray]:
    """Binary cross-entropy over all labels, its slope [K] and its curvature [K, K]."""
    scores = np.tensordot(weights, logits, axes=1)
    probabilities = sigmoid(scores)
    loss = np.logaddexp(0, scores).sum() - (targets * scores).sum()
    slope = np.einsum("bc,kbc->k", probabilities - targets, logits)
    spread = probabilities * (1 - probabilities)
    return loss, slope, np.einsum("bc,kbc,lbc->kl", spread, logits, logits, optimize=True)
