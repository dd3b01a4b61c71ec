"""Temperature scaling: one number that makes a classifier's probabilities honest.

Guo et al. 2017, On Calibration of Modern Neural Networks. Dividing logits by a temperature never
changes which label is predicted, only how sure the model says it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from distlstm.model.metrics import Metrics

SCORE_BINS = 20
_COLDEST, _HOTTEST = 0.05, 20.0
_HALVINGS = 40


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A temperature, and what the model is on validation at that temperature."""

    temperature: float
    metrics: Metrics
    score_histogram: list[int]
    thresholds: tuple[float, ...] = ()
    """By label id, of a model that gives sets of labels."""
    """Rows by the score of the predicted label, as `score_histogram` counts them."""


def score_histogram(scores: np.ndarray) -> np.ndarray:
    """Rows by score, in 20 bins of equal width from 0 to 1 (int64)."""
    return np.histogram(scores, SCORE_BINS, (0, 1))[0]


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Probabilities (float64 [B, C]) of logits at a temperature."""
    scaled = logits.astype(np.float64) / temperature
    powers = np.exp(scaled - scaled.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def fit_temperature(
    logits: np.ndarray,
    label_ids: np.ndarray,
    *,
    targets: np.ndarray | None = None,
    probabilities: Callable[[np.ndarray, float], np.ndarray] = softmax,
    add_up: Callable[[np.ndarray], np.ndarray] = lambda vector: vector,
) -> float:
    """The temperature with the least log loss on held-out rows ([B, C] and [B]).

    With `targets` [B, C], labels' probabilities, the loss is the cross-entropy against them: the
    scores are to be as sure as whoever gave them, not as their most probable label alone. With a
    sigmoid for `probabilities`, it is the binary cross-entropy.

    The loss is convex in the inverse temperature, so the zero of its slope is bisected. With
    `add_up`, which adds a vector up over workers, the rows are those of all workers together.
    Without rows the temperature is 1.
    """
    if add_up(np.array([float(len(label_ids))]))[0] == 0:
        return 1.0
    logits = logits.astype(np.float64)
    if targets is None:
        of_truth = logits[np.arange(len(label_ids)), label_ids].sum()
    else:
        of_truth = (targets * logits).sum()
    low, high = 1 / _HOTTEST, 1 / _COLDEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        expected = (probabilities(logits, 1 / middle) * logits).sum() if len(logits) else 0.0
        slope = add_up(np.array([expected - of_truth]))[0]
        low, high = (low, middle) if slope > 0 else (middle, high)
    return float(2 / (low + high))
