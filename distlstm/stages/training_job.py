"""One training, as both `train` and the trials of `tune` run it in their workers."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from distlstm.config import ExperimentConfig
from distlstm.data.batching import cut_by_length, plan_epoch, rows_of_rank
from distlstm.data.corpus import EncodedCorpus
from distlstm.data.shards import Shards
from distlstm.data.weights import row_weights
from distlstm.model.batch import Batch
from distlstm.model.calibration import (
    SCORE_BINS,
    Calibration,
    fit_temperature,
    score_histogram,
)
from distlstm.model.classifier import Classifier
from distlstm.model.label_kind import label_kind
from distlstm.model.loop import Training, Worker, epochs_for, predict

_VALIDATION_ROWS_PER_BATCH = 256


@dataclass(frozen=True)
class ShardBatches:
    """Batches made of a corpus's rows as they are asked for."""

    shards: Shards
    steps: list[tuple[np.ndarray, np.ndarray]]
    """Row indices and weights of each batch."""

    def __len__(self) -> int:
        return len(self.steps)

    def targets(self) -> np.ndarray | None:
        """The labels' probabilities in all rows, batch after batch; None if no row has any."""
        rows = [rows for rows, _ in self.steps]
        return self.shards.targets_of(np.concatenate([np.zeros(0, np.int64), *rows]))

    def __iter__(self) -> Iterator[Batch]:
        for rows, weights in self.steps:
            taken = self.shards.take(rows)
            yield Batch.of_rows(
                taken.token_ids,
                taken.lengths,
                label_ids=taken.label_ids,
                weights=weights,
                targets=taken.targets,
            )


class TrainingJob:
    """A training over an encoded corpus, in one worker."""

    def __init__(self, corpus: EncodedCorpus, config: ExperimentConfig, worker: Worker) -> None:
        self.corpus = corpus
        self.config = config
        self.worker = worker
        self.row_weights = row_weights(
            corpus.training.label_ids,
            corpus.training.weights,
            balanced=config.training.class_weights == "balanced",
        )
        torch.manual_seed(config.seed)
        model = Classifier(
            config.model, vocab_size=len(corpus.vocabulary), num_labels=len(corpus.labels)
        )
        self.training = Training(
            model,
            config.training,
            num_epochs=epochs_for(config.training, len(self._plan(0))),
            seed=config.seed,
            worker=worker,
            kind=label_kind(corpus.kind),
        )

    def training_batches(self, epoch: int) -> ShardBatches:
        """This worker's rows of every step of an epoch."""
        steps = [
            rows_of_rank(step, rank=self.worker.rank, world_size=self.worker.world_size)
            for step in self._plan(epoch)
        ]
        return ShardBatches(
            self.corpus.training,
            [(rows, shares * self.row_weights[rows]) for rows, shares in steps],
        )

    def validation_batches(self) -> ShardBatches:
        """This worker's share of the validation rows, in batches of like length."""
        lengths = self.corpus.validation.lengths
        batches = cut_by_length(
            np.arange(len(lengths)),
            lengths,
            tokens_per_batch=self.config.training.tokens_per_batch,
            rows_per_batch=_VALIDATION_ROWS_PER_BATCH,
        )
        mine = list(batches)[self.worker.rank :: self.worker.world_size]
        return ShardBatches(
            self.corpus.validation, [(rows, np.ones(len(rows), np.float32)) for rows in mine]
        )

    def calibrate(self) -> Calibration:
        """Fit the temperature of the best weights, and measure them with it on validation."""
        self.training.model.load_state_dict(self.training.best_weights)
        num_labels = len(self.corpus.labels)
        validation = self.validation_batches()
        batches = [
            (logits, batch.label_ids.numpy())
            for logits, batch in predict(self.training.model, validation, device=self.worker.device)
        ]
        logits = np.concatenate([np.zeros((0, num_labels)), *(batch[0] for batch in batches)])
        label_ids = np.concatenate([np.zeros(0, np.int64), *(batch[1] for batch in batches)])
        targets, kind, add_up = validation.targets(), self.training.kind, self.worker.add_up
        temperature = fit_temperature(
            *(logits, label_ids),
            targets=targets,
            probabilities=kind.probabilities,
            add_up=add_up,
        )
        totals, histogram = kind.zero(num_labels), np.zeros(SCORE_BINS)
        probabilities = np.zeros((0, num_labels))
        if len(label_ids):
            probabilities = kind.probabilities(logits, temperature)
            histogram += score_histogram(probabilities.max(1))
        kind = kind.fitted(probabilities, targets, add_up)
        if len(label_ids):
            totals += kind.totals(probabilities, label_ids, targets)
        return Calibration(
            temperature=temperature,
            metrics=kind.metrics(kind.from_vector(add_up(totals.to_vector()))),
            score_histogram=add_up(histogram).astype(int).tolist(),
            thresholds=kind.thresholds,
        )

    def _plan(self, epoch: int) -> list[np.ndarray]:
        return plan_epoch(
            self.corpus.training.lengths,
            tokens_per_batch=self.config.training.tokens_per_batch,
            rows_per_batch=self.config.training.rows_per_batch,
            seed=self.config.seed,
            epoch=epoch,
        )
