"""Training a language model: this package, a plain loop, and the bare recurrent kernels.

All read the same rows (30,000 tokens in the vocabulary, words by Zipf's law, lengths as of news)
with the same model, one thread each.

- ours: windows of similar length, sampled softmax, bfloat16 if the processor supports it
- plain: random batches of 64 rows, padded, float32, softmax over the vocabulary, Adam
- kernels: forward and backward pass of our recurrent layers alone, on our batches
- two workers with gloo, as in `distlstm pretrain`, and two that exchange nothing

Prints one JSON line: tokens per second without padding (medians), and ratios.
"""

import json
import os
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.side_by_side import of_workers
from distlstm import environment
from distlstm.config import ModelConfig, PretrainingConfig
from distlstm.data.batching import plan_epoch, rows_of_rank, text_limits
from distlstm.model.batch import Batch
from distlstm.model.language_model import LanguageModel, sample_tokens
from distlstm.model.loop import Worker
from distlstm.model.pretraining import Pretraining

NUM_ROWS, VOCAB_SIZE, CORPUS_TOKENS, RUNS = 3_000, 30_000, 10_000_000, 3
CONFIG = PretrainingConfig()


class Texts:
    """Artificial rows, and this rank's batches of them."""

    def __init__(self, *, rank: int = 0, world_size: int = 1) -> None:
        rng = np.random.default_rng(0)
        lengths = rng.lognormal(3.6, 0.8, NUM_ROWS).astype(int).clip(2, CONFIG.tokens_per_window)
        self.rows = [(VOCAB_SIZE ** rng.random(n)).astype(np.int32).clip(2) for n in lengths]
        self.lengths, self.rank, self.world_size = lengths, rank, world_size
        self.steps = plan_epoch(lengths, text_limits(CONFIG, CORPUS_TOKENS), seed=0, epoch=0)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Batch]:
        rng = np.random.default_rng(0)
        for step in self.steps:
            mine, weights = rows_of_rank(step, rank=self.rank, world_size=self.world_size)
            sampled = sample_tokens(VOCAB_SIZE, CONFIG.sampled_tokens, rng)
            batch = Batch.of_rows(
                np.concatenate([self.rows[row] for row in mine]),
                self.lengths[mine],
                weights=weights * (len(step) / (2 * (self.lengths[step] - 1).sum())),
                step_tokens=np.concatenate([*(self.rows[row] for row in step), sampled]),
            )
            yield replace(batch, sampled_ids=torch.from_numpy(sampled.astype(np.int64)))


def model() -> LanguageModel:
    """A language model with random weights."""
    torch.manual_seed(0)
    return LanguageModel(ModelConfig(), vocab_size=VOCAB_SIZE, dropout=CONFIG.dropout)


def ours(worker: Worker, texts: Texts) -> float:
    """Tokens per second of all workers that share these texts; the first epoch is not counted."""
    few = Batch.of_rows(texts.rows[0], texts.lengths[:1])
    training = Pretraining(model(), CONFIG, num_epochs=2, seed=0, worker=worker)
    _, counted = training.run(lambda _: texts, lambda: [few])
    return counted.num_tokens / counted.seconds


def plain(texts: Texts) -> float:
    """Tokens per second of the usual training loop."""
    trained = model().train()
    optimizer = torch.optim.Adam(trained.parameters(), lr=1e-3)
    order = np.random.default_rng(0).permutation(NUM_ROWS)[: NUM_ROWS // 4]
    started = time.perf_counter()
    for start in range(0, len(order), 64):
        rows = order[start : start + 64]
        batch = Batch.of_rows(np.concatenate([texts.rows[i] for i in rows]), texts.lengths[rows])
        losses = [
            F.cross_entropy(found.vectors_ND @ trained.embedding.weight.t(), found.token_ids_N)
            for found in trained(batch.token_ids, batch.lengths)
        ]
        optimizer.zero_grad()
        torch.autograd.backward(losses)
        optimizer.step()
    return int(texts.lengths[order].sum()) / (time.perf_counter() - started)


def kernels(texts: Texts) -> float:
    """Tokens per second of the recurrent layers alone."""
    config = ModelConfig()
    trained = Pretraining(model(), CONFIG, num_epochs=1, seed=0, worker=Worker()).model
    sizes = [(int(texts.lengths[step].max()), len(step)) for step in texts.steps]
    cells = [nn.LSTM(config.embedding_dim, config.hidden_dim) for _ in range(2)]
    inputs = [torch.randn(*size, config.embedding_dim, requires_grad=True) for size in sizes]
    started = time.perf_counter()
    for values_TBD in inputs:
        for cell in cells:
            with trained.in_recurrent_dtype(values_TBD.device):
                states = cell(values_TBD)[0]
            torch.autograd.backward(states.float().sum())
    return int(texts.lengths.sum()) / (time.perf_counter() - started)


def measured(worker: Worker, rank: int, world_size: int) -> float:
    """Tokens per second with this rank's rows."""
    return ours(worker, Texts(rank=rank, world_size=world_size))


def main() -> None:
    """Measure all in turn."""
    os.environ["OMP_NUM_THREADS"] = "1"
    environment.prepare()
    torch.set_num_threads(1)
    texts = Texts()
    runs = [
        {
            "ours": ours(Worker(), texts),
            "plain": plain(texts),
            "kernels": kernels(texts),
            "two_workers": of_workers(2, measured, exchange=True),
            "two_without_exchange": of_workers(2, measured, exchange=False),
        }
        for _ in range(RUNS)
    ]

    def ratio(above: str, below: str) -> float:
        return round(statistics.median(run[above] / run[below] for run in runs), 2)

    figures = {
        "benchmark": "training step of a language model, one thread per worker",
        **{
            f"{name}_tokens_per_second": round(statistics.median(run[name] for run in runs))
            for name in runs[0]
        },
        "ratio": ratio("ours", "plain"),
        "share_of_the_kernels": ratio("ours", "kernels"),
        "share_of_two_without_exchange": ratio("two_workers", "two_without_exchange"),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
