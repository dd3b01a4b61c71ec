"""One training of a language model in a worker."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from distlstm.config import ExperimentConfig
from distlstm.data.batching import cut_by_length, plan_epoch, rows_of_rank, text_limits
from distlstm.data.text_corpus import EncodedTexts
from distlstm.data.text_windows import TextWindows
from distlstm.model.batch import Batch
from distlstm.model.language_model import LanguageModel, sample_tokens
from distlstm.model.loop import Worker
from distlstm.model.pretraining import Pretraining, epochs_for

_VALIDATION_TOKENS = 20_000


@dataclass(frozen=True)
class _TrainingBatches:
    """A worker's batches of an epoch, each read when it is needed."""

    windows: TextWindows
    steps: list[np.ndarray]
    """Windows of each step, over all workers."""
    job: "PretrainingJob"
    epoch: int

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[Batch]:
        worker = self.job.worker
        for number, step in enumerate(self.steps):
            rows, weights = rows_of_rank(step, rank=worker.rank, world_size=worker.world_size)
            sampled = self.job.sample(self.epoch, number)
            tokens = self.windows.take(rows)
            of_step = tokens if worker.world_size == 1 else self.windows.take(step)
            batch = Batch.of_rows(
                tokens,
                self.windows.lengths[rows].astype(np.int64),
                weights=weights * (len(step) / self._num_predictions(step)),
                step_tokens=np.concatenate([of_step, sampled]),
            )
            yield replace(batch, sampled_ids=torch.from_numpy(sampled.astype(np.int64)))

    def _num_predictions(self, step: np.ndarray) -> int:
        directions = 2 if self.job.config.model.bidirectional else 1
        return directions * int((self.windows.lengths[step] - 1).sum(dtype=np.int64))


class PretrainingJob:
    """The training of a language model on encoded texts, in one worker."""

    def __init__(
        self,
        corpus: EncodedTexts,
        config: ExperimentConfig,
        worker: Worker,
        *,
        time_budget: float | None = None,
    ) -> None:
        self.config = config
        self.worker = worker
        self.vocab_size = len(corpus.vocabulary)
        size = config.pretraining.tokens_per_window
        self.windows = TextWindows(corpus.training, size)
        self.validation = TextWindows(corpus.validation, size)
        self.limits = text_limits(config.pretraining, corpus.summary.num_tokens)
        torch.manual_seed(config.seed)
        self.training = Pretraining(
            LanguageModel(
                config.model, vocab_size=self.vocab_size, dropout=config.pretraining.dropout
            ),
            config.pretraining,
            num_epochs=epochs_for(config.pretraining, len(self._plan(0))),
            seed=config.seed,
            worker=worker,
            time_budget=time_budget,
        )

    def sample(self, epoch: int, step: int) -> np.ndarray:
        """The sampled tokens of a step, the same in all workers."""
        rng = np.random.default_rng((self.config.seed, epoch, step))
        return sample_tokens(self.vocab_size, self.config.pretraining.sampled_tokens, rng)

    def training_batches(self, epoch: int) -> _TrainingBatches:
        """This worker's windows of each step of an epoch."""
        return _TrainingBatches(self.windows, self._plan(epoch), self, epoch)

    def _plan(self, epoch: int) -> list[np.ndarray]:
        return plan_epoch(self.windows.lengths, self.limits, seed=self.config.seed, epoch=epoch)

    def validation_batches(self) -> Iterator[Batch]:
        """This worker's share of the validation windows, or of about 20,000 tokens of them."""
        lengths = self.validation.lengths
        order = np.random.default_rng(0).permutation(len(lengths))
        enough = int(np.searchsorted(np.cumsum(lengths[order]), _VALIDATION_TOKENS)) + 1
        batches = list(cut_by_length(order[:enough], lengths, self.limits))
        for rows in batches[self.worker.rank :: self.worker.world_size]:
            yield Batch.of_rows(self.validation.take(rows), lengths[rows].astype(np.int64))
