"""Tests of distlstm.model.embedding."""

import numpy as np
import pytest
import torch

from distlstm.config import ModelConfig
from distlstm.model.classifier import Classifier
from distlstm.model.embedding import set_vectors


def weights_before_and_after(vectors: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    config = ModelConfig(embedding_dim=vectors.shape[1], hidden_dim=3)
    classifier = Classifier(config, vocab_size=len(vectors), num_labels=2)
    before = classifier.embedding.weight.detach().clone()
    set_vectors(classifier, vectors)
    assert classifier.embedding.weight.requires_grad
    return before, classifier.embedding.weight.detach()


def test_found_vectors_have_the_size_of_the_random_ones_and_keep_their_proportions() -> None:
    vectors = np.random.default_rng(0).normal(1, 5, (500, 8)).astype(np.float32)
    vectors[:2] = vectors[100:200] = np.nan
    before, after = weights_before_and_after(vectors)
    has_vector = ~np.isnan(vectors[:, 0])
    factor = after[has_vector] / torch.from_numpy(vectors[has_vector])
    torch.testing.assert_close(factor, torch.full_like(factor, float(factor[0, 0])))
    size = after[has_vector].square().mean().sqrt()
    assert float(size) == pytest.approx(float(before.square().mean().sqrt()), rel=1e-4)
    assert torch.equal(before[~has_vector], after[~has_vector])
    assert not after[0].any()


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_no_vectors_and_vectors_of_zeros_leave_finite_weights(value: float) -> None:
    vectors = np.full((6, 4), value, np.float32)
    before, after = weights_before_and_after(vectors)
    assert torch.equal(after, before if np.isnan(value) else torch.zeros(6, 4))
