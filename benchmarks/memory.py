"""Memory over a long gap: the effect of the gates and of the initial weights.

The first token of a row determines its label; the other tokens are noise. Each cell is trained in
the same way on fresh rows, from this package's initial weights and from torch's. Prints one JSON
line: test accuracy (chance is 0.5) by cell and length, and how much of the gradient of the last
state reaches the first token before training.
"""

import json
from collections.abc import Iterator

import numpy as np
import torch

from distlstm.config import ModelConfig, TrainingConfig
from distlstm.model.batch import Batch
from distlstm.model.classifier import Classifier
from distlstm.model.loop import Worker
from distlstm.model.training import Training

LENGTHS, SEEDS, STEPS, ROWS = (10, 40, 120), (0, 1), 250, 64
CELLS = ("rnn", "gru", "lstm")


class Recall:
    """Batches of rows of one length whose first token, 2 or 3, is the label."""

    def __init__(self, length: int, seed: int, steps: int) -> None:
        self.length, self.seed, self.steps = length, seed, steps

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng((self.length, self.seed))
        for _ in range(self.steps):
            tokens = rng.integers(4, 24, (ROWS, self.length)).astype(np.int32)
            labels = rng.integers(0, 2, ROWS)
            tokens[:, 0] = 2 + labels
            yield Batch.of_rows(tokens.ravel(), np.full(ROWS, self.length), label_ids=labels)


def classifier(cell: str, seed: int, initial: str) -> Classifier:
    """A small one-directional model that reads only the last state."""
    torch.manual_seed(seed)
    config = ModelConfig(
        cell=cell,  # type: ignore[arg-type]
        embedding_dim=16,
        hidden_dim=32,
        bidirectional=False,
        pooling=("last",),
        dropout=0.0,
        state_dropout=0.0,
        token_dropout=0.0,
    )
    model = Classifier(config, vocab_size=24, num_labels=2)
    if initial == "torch":
        for module in model.layers[0].modules():
            if isinstance(module, torch.nn.RNNBase):
                module.reset_parameters()
    return model


def accuracy(cell: str, length: int, seed: int, initial: str) -> float:
    """Test accuracy after training."""
    config = TrainingConfig(learning_rate=5e-3, label_smoothing=0.0, precision="fp32")
    training = Training(
        classifier(cell, seed, initial), config, num_epochs=1, seed=seed, worker=Worker()
    )
    (result,) = training.run(
        lambda _: Recall(length, seed, STEPS), lambda: Recall(length, 99 + seed, 8)
    )
    return result.validation.accuracy


def gradient_share(cell: str, length: int, initial: str) -> float:
    """Norm of d(last state) / d(first embedding) over that of d / d(last embedding)."""
    model = classifier(cell, 0, initial)
    batch = next(iter(Recall(length, 0, 1)))
    inputs = model.embedding(batch.token_ids.t()).detach().requires_grad_()
    states = model.layers[0](inputs, torch.zeros_like(batch.token_ids.t())).forward_TBH
    torch.autograd.backward(states[-1].sum())
    norms = inputs.grad.norm(dim=(1, 2)) if inputs.grad is not None else torch.zeros(length)
    return float(norms[0] / norms[-1])


def main() -> None:
    """Train every cell at every length."""
    torch.set_num_threads(1)
    figures = {
        f"{cell}, {initial} initial weights": {
            str(length): {
                "accuracy": [round(accuracy(cell, length, seed, initial), 3) for seed in SEEDS],
                "gradient_share": float(f"{gradient_share(cell, length, initial):.2g}"),
            }
            for length in LENGTHS
        }
        for initial in ("our", "torch")
        for cell in CELLS
    }
    print(json.dumps({"benchmark": "recall of the first token", **figures}))


if __name__ == "__main__":
    main()
