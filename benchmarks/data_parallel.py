"""Two data-parallel training workers against one, on the same rows and model.

One thread per worker, with gloo, as in `distlstm train`. The first of three epochs, in which
kernels are compiled, is not counted. Prints one JSON line for each size of corpus, which determines
the size of a step: tokens per second without padding of both (medians), their ratio, and the ratio
for two workers that exchange no gradients, which is the limit of the machine.
"""

import json
import os
import statistics
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import torch

from benchmarks.batching import CONFIG, NUM_LABELS, VOCAB_SIZE, Rows
from benchmarks.side_by_side import of_workers
from distlstm import environment
from distlstm.config import ModelConfig
from distlstm.data.batching import rows_of_rank
from distlstm.model.batch import Batch, used_ids
from distlstm.model.classifier import Classifier
from distlstm.model.loop import Worker
from distlstm.model.training import Training

CORPORA, EPOCHS, RUNS = (30_000, 1_000_000), 3, 5


class Share:
    """One worker's rows of every step."""

    def __init__(self, rows: Rows, *, rank: int, world_size: int) -> None:
        self.rows, self.rank, self.world_size = rows, rank, world_size
        self.steps = rows.plan()

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Batch]:
        for step in self.steps:
            mine, weights = rows_of_rank(step, rank=self.rank, world_size=self.world_size)
            batch = self.rows.batch(mine)
            tokens = np.concatenate([self.rows.rows[row] for row in step])
            yield replace(
                batch,
                weights=torch.from_numpy(weights),
                step_ids=used_ids(torch.from_numpy(tokens)),
            )


def tokens_per_second(worker: Worker, share: Share) -> float:
    """Tokens per second of all workers whose steps this worker shares."""
    torch.manual_seed(0)
    model = Classifier(ModelConfig(), vocab_size=VOCAB_SIZE, num_labels=NUM_LABELS)
    training = Training(model, CONFIG, num_epochs=EPOCHS, seed=0, worker=worker)
    _, *counted = training.run(lambda _: share, list)
    return sum(each.num_tokens for each in counted) / sum(each.seconds for each in counted)


def measured(worker: Worker, rank: int, world_size: int, *, corpus_rows: int) -> float:
    """Tokens per second with this rank's rows."""
    share = Share(Rows(corpus_rows), rank=rank, world_size=world_size)
    return tokens_per_second(worker, share)


def main() -> None:
    """Measure all in turn."""
    os.environ["OMP_NUM_THREADS"] = "1"
    environment.prepare()
    for corpus_rows in CORPORA:
        measure = partial(measured, corpus_rows=corpus_rows)
        runs = [
            (
                of_workers(1, measure, exchange=False),
                of_workers(2, measure, exchange=True),
                of_workers(2, measure, exchange=False),
            )
            for _ in range(RUNS)
        ]
        figures = {
            "benchmark": "two training workers over one",
            "rows_of_the_corpus": corpus_rows,
            "one_tokens_per_second": round(statistics.median(one for one, _, _ in runs)),
            "two_tokens_per_second": round(statistics.median(two for _, two, _ in runs)),
            "ratio": round(statistics.median(two / one for one, two, _ in runs), 2),
            "ratio_without_exchange": round(statistics.median(w / one for one, _, w in runs), 2),
        }
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
