"""Training steps of this package against those of a plain loop, on the same rows and model.

Ours: batches of similar length within a token budget, bfloat16 if the processor supports it, fused
AdamW. Plain: random batches of 64 rows, padded, float32, Adam. Both use one thread. Prints one JSON
line: tokens per second without padding of both (medians), and their ratio.
"""

import json
import statistics
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch.nn import functional as F

from distlstm.config import ModelConfig, TrainingConfig
from distlstm.data.batching import plan_epoch, step_limits
from distlstm.model.batch import Batch
from distlstm.model.classifier import Classifier
from distlstm.model.loop import Worker
from distlstm.model.training import Training

NUM_ROWS, VOCAB_SIZE, NUM_LABELS, RUNS = 3_000, 20_000, 4, 3
CORPUS_ROWS = 30_000
"""Rows of the corpus from which these rows could be; this determines the size of a step."""
CONFIG = TrainingConfig()


class Rows:
    """Artificial rows, with lengths distributed as those of news, and words by Zipf's law."""

    def __init__(self, corpus_rows: int = CORPUS_ROWS) -> None:
        self.limits = step_limits(CONFIG, corpus_rows)
        rng = np.random.default_rng(0)
        lengths = rng.lognormal(3.6, 0.8, NUM_ROWS).astype(int) + 1
        self.rows = [(VOCAB_SIZE ** rng.random(n)).astype(np.int32).clip(2) for n in lengths]
        self.lengths = lengths
        self.labels = rng.integers(0, NUM_LABELS, NUM_ROWS)

    def plan(self) -> list[np.ndarray]:
        """The steps of an epoch."""
        return plan_epoch(self.lengths, self.limits, seed=0, epoch=0)

    def batch(self, rows: np.ndarray) -> Batch:
        """These rows, padded."""
        tokens = np.concatenate([self.rows[i] for i in rows])
        return Batch.of_rows(tokens, self.lengths[rows], label_ids=self.labels[rows])


class Steps:
    """The batches of an epoch."""

    def __init__(self, rows: Rows, steps: list[np.ndarray]) -> None:
        self.rows, self.steps = rows, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Batch]:
        return map(self.rows.batch, self.steps)


def ours(rows: Rows) -> tuple[float, float]:
    """Tokens per second, and the ratio of padding to tokens."""
    torch.manual_seed(0)
    model = Classifier(ModelConfig(), vocab_size=VOCAB_SIZE, num_labels=NUM_LABELS)
    training = Training(model, CONFIG, num_epochs=1, seed=0, worker=Worker())
    (result,) = training.run(lambda _: Steps(rows, rows.plan()), list)
    return result.num_tokens / result.seconds, result.padding_share


def plain(rows: Rows) -> float:
    """Tokens per second of the usual training loop."""
    torch.manual_seed(0)
    model = Classifier(ModelConfig(), vocab_size=VOCAB_SIZE, num_labels=NUM_LABELS).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    order = np.random.default_rng(0).permutation(NUM_ROWS)
    started = time.perf_counter()
    for start in range(0, NUM_ROWS, 64):
        batch = rows.batch(order[start : start + 64])
        loss = F.cross_entropy(model(batch.token_ids, batch.lengths), batch.label_ids)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
    return int(rows.lengths.sum()) / (time.perf_counter() - started)


def main() -> None:
    """Measure both in turn."""
    torch.set_num_threads(1)
    rows = Rows()
    pairs = [(ours(rows), plain(rows)) for _ in range(RUNS)]
    figures = {
        "benchmark": "training step, one thread",
        "ours_tokens_per_second": round(statistics.median(a[0] for a, _ in pairs)),
        "plain_tokens_per_second": round(statistics.median(b for _, b in pairs)),
        "ratio": round(statistics.median(a[0] / b for a, b in pairs), 2),
        "padding_share": round(pairs[0][0][1], 4),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
