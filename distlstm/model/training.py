"""The training of a classifier: its loss, and its validation after every epoch."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.func import functional_call

from distlstm.config import TrainingConfig
from distlstm.model.batch import Batch
from distlstm.model.classifier import Classifier
from distlstm.model.divergence import check_finite
from distlstm.model.label_kind import ONE_LABEL, LabelKind, Sums
from distlstm.model.loop import EpochFigures, EpochLoop, Losses, Optimization, Worker
from distlstm.model.metrics import Metrics
from distlstm.model.recurrent import recurrent_dtype
from distlstm.model.row_adamw import UsedRows

_MANY_ROWS = 5_000


@dataclass(frozen=True, kw_only=True)
class EpochResult(EpochFigures):
    """The result of one epoch of a classifier."""

    validation: Metrics

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The result that `dataclasses.asdict` made a mapping of."""
        return cls(**{**row, "validation": Metrics(**row["validation"])})


class Training(EpochLoop[Classifier, EpochResult]):
    """A classifier in training."""

    section = "training"
    result_type = EpochResult

    def __init__(
        self,
        model: Classifier,
        config: TrainingConfig,
        *,
        num_epochs: int,
        seed: int,
        worker: Worker,
        kind: LabelKind = ONE_LABEL,
        pretrained_rate: float = 1.0,
    ) -> None:
        """`pretrained_rate` is a factor for the learning rate of embedding and layers."""
        self.kind = kind
        self.config = config
        model.recurrent_dtype = recurrent_dtype(config.precision, worker.device)
        optimization = Optimization(
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
            shares=dict.fromkeys(("embedding", "layers"), pretrained_rate),
        )
        super().__init__(model, optimization, num_epochs=num_epochs, seed=seed, worker=worker)

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done, or patience has run out."""
        waited = len(self.history) - (self.best.epoch if self.best else 0)
        return super().finished or waited >= self.config.patience

    @property
    def num_classes(self) -> int:
        """The number of labels."""
        return self.model.output.out_features

    def trains_embedding(self) -> bool:
        """Whether the frozen epochs are over."""
        return len(self.history) >= self.config.frozen_epochs

    def losses(self, used: UsedRows, batch: Batch) -> Losses:
        """The loss of each row."""
        logits = apply_rows(self.model, used, batch)
        smoothing = self.config.label_smoothing
        return Losses(
            self.kind.losses(logits, batch, label_smoothing=smoothing), weights=batch.weights
        )

    def measure(self, figures: Mapping[str, Any], batches: Iterable[Batch]) -> EpochResult:
        """Validate; DivergenceError if the validation loss is not finite."""
        metrics = self.kind.metrics(self.validate(batches))
        loss = np.array([metrics.log_loss])
        check_finite("the validation loss", loss, step=max(0, figures["steps"] - 1))
        return EpochResult(**figures, validation=metrics, is_best=self._is_best(metrics))

    def validate(self, batches: Iterable[Batch]) -> Sums:
        """Sums over the validation batches of all workers."""
        kind = self.kind
        totals = kind.zero(self.num_classes)
        for logits, batch in predict(self.model, batches, device=self.worker.device):
            members = None if batch.targets is None else batch.targets.numpy()
            totals += kind.totals(kind.probabilities(logits), batch.label_ids.numpy(), members)
        return kind.from_vector(self.worker.all_reduce(totals.to_vector()))

    def _is_best(self, metrics: Metrics) -> bool:
        """Compare by the metric (balanced: by macro recall), then by log loss."""

        def quality(of: Metrics) -> tuple[float, float]:
            if self.config.class_weights == "balanced":
                return of.macro_recall, -of.log_loss
            if self.config.metric == "macro_f1":
                return of.macro_f1, -of.log_loss
            return self.kind.quality(of), -of.log_loss

        return self.best is None or quality(metrics) > quality(self.best.validation)


def apply_rows(model: Classifier, used: UsedRows, batch: Batch) -> Tensor:
    """Logits [B, C] of a model with the used embedding rows only, so that these get gradients."""
    inputs = used.index_of(batch.token_ids), batch.lengths
    logits: Tensor = functional_call(model, {"embedding.weight": used.weights}, inputs)
    return logits


def predict(
    model: Classifier, batches: Iterable[Batch], *, device: torch.device
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Yield the logits (float32 [B, C]) of each batch without dropout, and the batch.

    The logits of a batch are copied back after the next batch is sent, so that a GPU never waits.
    """
    model.eval()
    sent: tuple[Tensor, Batch] | None = None
    for batch in batches:
        with torch.inference_mode():
            token_ids = batch.token_ids.to(device, non_blocking=True)
            logits = model(token_ids, batch.lengths.to(device, non_blocking=True))
        if sent is not None:
            yield sent[0].cpu().numpy(), sent[1]
        sent = logits, batch
    if sent is not None:
        yield sent[0].cpu().numpy(), sent[1]


def pretrained_rate(config: TrainingConfig, num_rows: int) -> float:
    """The factor of the learning rate of pretrained layers, for a training on so many rows.

    Few rows would overwrite what the layers know; many can improve on it.
    """
    return config.pretrained_rate or (0.3 if num_rows < _MANY_ROWS else 1.0)


def epochs_for(config: TrainingConfig, steps_per_epoch: int) -> int:
    """The epochs for about `config.steps` steps, at least `min_epochs`, at most `max_epochs`."""
    wanted = math.ceil(config.steps / max(1, steps_per_epoch))
    return min(config.max_epochs, max(config.min_epochs, wanted))
