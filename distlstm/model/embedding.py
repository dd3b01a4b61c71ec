"""Pretrained vectors in a classifier's embedding."""

import math

import numpy as np
import torch

from distlstm.model.classifier import Classifier


def set_vectors(classifier: Classifier, vectors: np.ndarray) -> None:
    """Copy pretrained vectors into the embedding; tokens without one keep a random vector.

    All pretrained vectors are scaled by one factor, to the root mean square of the random ones. So
    directions and relative lengths stay; for any file, the inputs of the recurrent layers have the
    size for which the initial weights are made, and tokens with and without a vector have similar
    sizes.

    Args:
        classifier: a new one.
        vectors: float32 [V, D]; a row of NaN is a token without a vector.
    """
    weight = classifier.embedding.weight.detach()
    has_vector = ~np.isnan(vectors[:, 0])
    found = torch.from_numpy(vectors[has_vector])
    size = _root_mean_square(found)
    if size > 0:
        found *= _root_mean_square(weight) / size
    weight[torch.from_numpy(has_vector)] = found


def _root_mean_square(values: torch.Tensor) -> float:
    return float(torch.linalg.vector_norm(values)) / math.sqrt(max(1, values.numel()))
