"""The weights of training rows in the loss, as a pure function."""

import numpy as np


def row_weights(label_ids: np.ndarray, given: np.ndarray, *, balanced: bool) -> np.ndarray:
    """The weight of each row in the loss (float32, [rows]), 1 on average.

    The mean of 1 makes the size of a step independent of the scale of the weights. A step's loss is
    divided by its number of rows, not by the sum of their weights: its gradient is then, on
    average, that of all rows.

    Args:
        label_ids: of the training rows, [rows].
        given: the weight of each row in the data, [rows]; not all 0.
        balanced: also multiply by rows / (labels * rows of its label), as scikit-learn does.
    """
    weights = np.asarray(given, np.float32)
    if balanced:
        weights = weights / np.bincount(label_ids).astype(np.float32)[label_ids]
    return np.asarray(weights / np.float32(weights.mean(dtype=np.float64)))
