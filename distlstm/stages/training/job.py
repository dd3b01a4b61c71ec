"""One training in a worker. Both `train` and the trials of `tune` run it."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from distlstm.config import ExperimentConfig
from distlstm.data.batching import BatchLimits, cut_by_length, plan_epoch, rows_of_rank, step_limits
from distlstm.data.corpus import EncodedCorpus
from distlstm.data.shards import Shards
from distlstm.data.weights import row_weights
from distlstm.model.batch import Batch
from distlstm.model.classifier import Classifier
from distlstm.model.directory import TrainedModel
from distlstm.model.embedding import set_vectors
from distlstm.model.ensemble import Calibration, ValidationLogits, calibrate
from distlstm.model.growth import begin_from, grow_from
from distlstm.model.label_kind import label_kind
from distlstm.model.language_directory import PretrainedModel
from distlstm.model.linear import LinearModel
from distlstm.model.loop import Worker
from distlstm.model.training import Training, epochs_for, predict, pretrained_rate
from distlstm.stages.training.initial_model import load_initial
from distlstm.storage import Directory

_VALIDATION_ROWS_PER_BATCH = 256


@dataclass(frozen=True)
class ShardBatches:
    """Batches of the rows of a corpus, each read when it is needed."""

    shards: Shards
    steps: list[tuple[np.ndarray, np.ndarray]]
    """Row indices and weights of each batch."""
    shared: list[np.ndarray] | None = None
    """Row indices of each step over all workers, if these batches are those of one of several."""

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def _rows(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.int64), *(rows for rows, _ in self.steps)])

    def label_ids(self) -> np.ndarray:
        """The label ids of all rows, in the order of the batches (int64, [rows])."""
        return np.asarray(self.shards.label_ids[self._rows], np.int64)

    def targets(self) -> np.ndarray | None:
        """The label probabilities of all rows, in the order of the batches; None without any."""
        return self.shards.targets_of(self._rows)

    def __iter__(self) -> Iterator[Batch]:
        for step, (rows, weights) in enumerate(self.steps):
            taken = self.shards.take(rows)
            yield Batch.of_rows(
                taken.token_ids,
                taken.lengths,
                label_ids=taken.label_ids,
                weights=weights,
                targets=taken.targets,
                step_tokens=self.shards.take(self.shared[step]).token_ids if self.shared else None,
            )


class TrainingJob:
    """A training on an encoded corpus, in one worker."""

    def __init__(
        self,
        corpus: EncodedCorpus,
        config: ExperimentConfig,
        worker: Worker,
        *,
        init: Directory | None = None,
    ) -> None:
        """Initialise the weights: random, then from vectors, then from an earlier model."""
        self.corpus = corpus
        self.config = config
        self.worker = worker
        self.limits = step_limits(config.training, len(corpus.training))
        self.row_weights = row_weights(
            corpus.training.label_ids,
            corpus.training.weights,
            balanced=config.training.class_weights == "balanced",
        )
        torch.manual_seed(config.seed)
        model = Classifier(
            config.model, vocab_size=len(corpus.vocabulary), num_labels=len(corpus.labels)
        )
        if corpus.vectors is not None:
            set_vectors(model, corpus.vectors)
        earlier = None if init is None else load_initial(init)
        if earlier is not None:
            if isinstance(earlier, TrainedModel):
                grow_from(model, earlier, labels=corpus.labels)
            else:
                begin_from(model, earlier.model)
        self.training = Training(
            model,
            config.training,
            num_epochs=epochs_for(config.training, len(self._plan(0))),
            seed=config.seed,
            worker=worker,
            kind=label_kind(corpus.kind),
            pretrained_rate=pretrained_rate(config.training, len(corpus.training))
            if isinstance(earlier, PretrainedModel)
            else 1.0,
        )

    def training_batches(self, epoch: int) -> ShardBatches:
        """This worker's rows of each step of an epoch."""
        plan = self._plan(epoch)
        steps = [
            rows_of_rank(step, rank=self.worker.rank, world_size=self.worker.world_size)
            for step in plan
        ]
        return ShardBatches(
            self.corpus.training,
            [(rows, shares * self.row_weights[rows]) for rows, shares in steps],
            shared=plan if self.worker.world_size > 1 else None,
        )

    def validation_batches(self) -> ShardBatches:
        """This worker's share of the validation rows, in batches of similar length."""
        lengths = self.corpus.validation.lengths
        batches = cut_by_length(
            np.arange(len(lengths)),
            lengths,
            BatchLimits(rows=_VALIDATION_ROWS_PER_BATCH, tokens=self.limits.tokens),
        )
        mine = list(batches)[self.worker.rank :: self.worker.world_size]
        return ShardBatches(
            self.corpus.validation, [(rows, np.ones(len(rows), np.float32)) for rows in mine]
        )

    def linear_logits(self, linear: LinearModel | None) -> np.ndarray | None:
        """Logits of the linear model (float32, [rows, C]) for this worker's validation rows."""
        if linear is None:
            return None
        logits = [np.zeros((0, len(self.corpus.labels)), np.float32)]
        batches = self.validation_batches()
        for rows, _ in batches.steps:
            taken = batches.shards.take(rows)
            logits.append(linear.logits(taken.token_ids, taken.offsets))
        return np.concatenate(logits)

    def calibrate(
        self, linear_logits: np.ndarray | None, *, weights: Mapping[str, Tensor] | None = None
    ) -> Calibration:
        """Combine the recurrent and the linear model, and measure them on the validation rows.

        Args:
            linear_logits: the result of `linear_logits`; None if the linear model is not used.
            weights: of the recurrent model; None: those of the best epoch so far.
        """
        model = copy.deepcopy(self.training.model)
        model.load_state_dict(self.training.best_weights if weights is None else weights)
        batches, num_labels = self.validation_batches(), len(self.corpus.labels)
        outputs = predict(model, batches, device=self.worker.device)
        rows = ValidationLogits(
            recurrent=np.concatenate([np.zeros((0, num_labels)), *(out for out, _ in outputs)]),
            linear=linear_logits,
            label_ids=batches.label_ids(),
            targets=batches.targets(),
        )
        return calibrate(
            rows,
            kind=self.training.kind,
            cascade_tolerance=self.config.model.cascade,
            label_counts=self._label_counts()
            if self.config.training.metric == "macro_f1"
            else None,
            all_reduce=self.worker.all_reduce,
        )

    def _label_counts(self) -> np.ndarray | None:
        """Training rows of each label (int64 [C]), if the metric is macro-F1."""
        if self.config.training.metric != "macro_f1":
            return None
        label_ids = self.corpus.training.label_ids
        return np.bincount(label_ids, minlength=len(self.corpus.labels))

    def _plan(self, epoch: int) -> list[np.ndarray]:
        lengths = self.corpus.training.lengths
        return plan_epoch(lengths, self.limits, seed=self.config.seed, epoch=epoch)
