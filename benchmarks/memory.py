"""What a gated cell does that a plain RNN cannot: remember the first token of a long sequence.

The first token is one of four symbols and names the class; all others are noise. So the answer
must be carried through every step, and the gradient that teaches it must come all the way back.
Every cell trains by the same recipe and by the package's own loop, on data that never repeats.
`rnn-plain` is the package's RNN with the initial weights that torch gives it, not orthogonal ones.

Prints one JSON line: per cell and length T, the accuracy on rows of exactly T tokens (chance is
0.25) by seed, and the gradient of the last state with respect to the first token's vector, before
and after training. About 75 seconds on one core; the other recipe is `--lengths fixed`.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from distlstm.config import ModelConfig, TrainingConfig
from distlstm.model.batch import Batch
from distlstm.model.classifier import Classifier, reversal_index
from distlstm.model.loop import Training, Worker

Lengths = Literal["mixed", "fixed"]
CELLS: dict[str, Literal["rnn", "gru", "lstm"]] = {
    "rnn-plain": "rnn",
    "rnn": "rnn",
    "gru": "gru",
    "lstm": "lstm",
}
NUM_CLASSES, NUM_NOISE, FIRST_ID = 4, 8, 2
ROWS, EPOCHS, TEST_BATCHES = 32, 5, 8
_NEVER_TRAINED_ON = 10_000
"""Epoch number of the test data: its own random stream."""


@dataclass(frozen=True)
class RecallBatches:
    """Fresh random rows; `mixed` lengths are uniform from 1 to `longest`, `fixed` all `longest`."""

    longest: int
    steps: int
    lengths: Lengths
    seed: tuple[int, int]

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        random = np.random.default_rng(self.seed)
        for _ in range(self.steps):
            shortest = 1 if self.lengths == "mixed" else self.longest
            lengths = random.integers(shortest, self.longest + 1, ROWS)
            label_ids = random.integers(0, NUM_CLASSES, ROWS)
            noise = FIRST_ID + NUM_CLASSES
            token_ids = random.integers(noise, noise + NUM_NOISE, int(lengths.sum()))
            token_ids[np.cumsum(lengths) - lengths] = FIRST_ID + label_ids
            yield Batch.of_rows(token_ids.astype(np.int32), lengths, label_ids=label_ids)


def new_classifier(name: str, seed: int) -> Classifier:
    """A small classifier that sees only the last state, and drops nothing."""
    torch.manual_seed(seed)
    config = ModelConfig(
        cell=CELLS[name],
        embedding_dim=16,
        hidden_dim=32,
        bidirectional=False,
        pooling=("last",),
        dropout=0.0,
        state_dropout=0.0,
        token_dropout=0.0,
    )
    model = Classifier(
        config, vocab_size=FIRST_ID + NUM_CLASSES + NUM_NOISE, num_labels=NUM_CLASSES
    )
    if name == "rnn-plain":
        for module in model.modules():
            if isinstance(module, torch.nn.RNNBase):
                module.reset_parameters()
    return model


def gradient_to_first(model: Classifier, batch: Batch) -> float:
    """Size of d(last state) / d(vector of the first token): its Frobenius norm, estimated.

    For a random v with covariance 1, the mean of |v J|^2 is the squared norm of J.
    """
    vectors: Tensor = model.embedding(batch.token_ids).detach().requires_grad_()
    reversal = reversal_index(batch.lengths, batch.token_ids.shape[1])
    states: Tensor = model.layers[0](vectors, reversal)
    last = states[:, -1]
    direction = torch.randn(last.shape, generator=torch.Generator().manual_seed(0))
    (gradient,) = torch.autograd.grad((last * direction).sum(), vectors)
    return float(gradient[:, 0].double().square().sum(1).mean().sqrt())


def train(name: str, longest: int, *, seed: int, steps: int, lengths: Lengths) -> dict[str, float]:
    """Train one classifier; its accuracy on rows of `longest` tokens, and its gradients."""
    test = RecallBatches(longest, TEST_BATCHES, "fixed", (seed, _NEVER_TRAINED_ON))
    probe = next(iter(test))
    model = new_classifier(name, seed)
    before = gradient_to_first(model, probe)
    training = Training(
        model,
        TrainingConfig(
            learning_rate=0.02,
            weight_decay=0.0,
            label_smoothing=0.0,
            patience=EPOCHS,
            precision="fp32",
        ),
        num_epochs=EPOCHS,
        seed=seed,
        worker=Worker(),
    )
    for _ in training.run(
        lambda epoch: RecallBatches(longest, steps // EPOCHS, lengths, (seed, epoch)),
        lambda: test,
    ):
        pass
    return {
        "accuracy": round(training.history[-1].validation.accuracy, 3),
        "gradient_before": float(f"{before:.2g}"),
        "gradient_after": float(f"{gradient_to_first(model, probe):.2g}"),
    }


def main() -> None:
    """Train every cell on every length with every seed, and print what came of it."""
    parser = argparse.ArgumentParser(description="Recall the first token: RNN, GRU and LSTM.")
    parser.add_argument("--lengths", choices=("mixed", "fixed"), default="mixed")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--longest", type=int, nargs="+", default=[10, 50, 150])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.perf_counter()
    results = {}
    for name in CELLS:
        for longest in options.longest:
            runs = [
                train(name, longest, seed=seed, steps=options.steps, lengths=options.lengths)
                for seed in options.seeds
            ]
            results[f"{name}/{longest}"] = {key: [run[key] for run in runs] for key in runs[0]}
    summary = {
        "benchmark": "memory",
        "lengths": options.lengths,
        "steps": options.steps,
        "seeds": options.seeds,
        "chance": 1 / NUM_CLASSES,
        "seconds": round(time.perf_counter() - started, 1),
        "results": results,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
