"""The epoch loop: batches in, epoch results out. It knows no Ray, and no file format.

Every epoch starts from a random state of its own, derived from seed, epoch and rank, so a run
that is resumed at an epoch draws the same dropout masks as one that was never interrupted.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from distlstm.config import TrainingConfig
from distlstm.errors import RunError
from distlstm.model.batch import Batch
from distlstm.model.classifier import Classifier, recurrent_dtype
from distlstm.model.label_kind import ONE_LABEL, LabelKind, Sums
from distlstm.model.metrics import Metrics

_WARM_UP = 0.1
_FINAL_RATE = 0.01
_BETAS = (0.9, 0.99)
_STEPS_BETWEEN_CHECKS = 50


class Batches(Protocol):
    """A known number of batches."""

    def __len__(self) -> int:
        """How many there are."""
        ...

    def __iter__(self) -> Iterator[Batch]:
        """Each of them once."""
        ...


@dataclass(frozen=True, kw_only=True)
class Worker:
    """This process's place among the workers of a run; by default it is the only one."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    wrap: Callable[[Classifier], nn.Module] = lambda model: model
    """Makes the module whose gradients are averaged over the workers (DDP)."""
    add_up: Callable[[np.ndarray], np.ndarray] = lambda vector: vector
    """Adds a float64 vector up over the workers."""


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """What one epoch gave. `epoch` counts from 1, as people read it."""

    epoch: int
    steps: int
    training_loss: float
    """Mean over the training rows, each counting the same, with dropout on."""
    validation: Metrics
    is_best: bool
    seconds: float
    """Of the training steps, validation aside."""
    num_tokens: int
    """Training tokens of all workers, padding left out."""
    padding_share: float
    """Padding over true tokens."""


class Training:
    """A model in training: its weights, the optimizer's state, and the best epoch so far."""

    def __init__(
        self,
        model: Classifier,
        config: TrainingConfig,
        *,
        num_epochs: int,
        seed: int,
        worker: Worker,
        kind: LabelKind = ONE_LABEL,
    ) -> None:
        self.kind = kind
        self.config = config
        self.num_epochs = num_epochs
        self.seed = seed
        self.worker = worker
        self.model = model.to(worker.device)
        self.model.recurrent_dtype = recurrent_dtype(config.precision, worker.device)
        self.module = worker.wrap(self.model)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(),
            lr=config.learning_rate,
            betas=_BETAS,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.history: list[EpochResult] = []
        self.best_weights = self.model.applied_weights()

    @property
    def best(self) -> EpochResult | None:
        """The epoch whose weights are kept: the last one that was better than all before it."""
        return next((result for result in reversed(self.history) if result.is_best), None)

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done, or patience has run out."""
        waited = len(self.history) - (self.best.epoch if self.best else 0)
        return len(self.history) >= self.num_epochs or waited >= self.config.patience

    def run(
        self,
        training: Callable[[int], Batches],
        validation: Callable[[], Iterable[Batch]],
        *,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Iterator[EpochResult]:
        """Train until finished; yields after every epoch.

        Args:
            training: this worker's batches of an epoch (from 0), as many for every worker.
            validation: this worker's share of the validation batches.
            on_step: called after a step with the steps done and the steps of this epoch.

        Raises:
            RunError: the loss is no longer a finite number.
        """
        while not self.finished:
            epoch = len(self.history)
            torch.manual_seed(_random_state(self.seed, epoch, self.worker.rank))
            started = time.perf_counter()
            batches = training(epoch)
            sums = self._train_epoch(epoch, batches, on_step)
            seconds = time.perf_counter() - started
            metrics = self.kind.metrics(self.validate(validation()))
            result = _epoch_result(
                epoch, len(batches), sums, metrics, seconds, is_best=self._is_best(metrics)
            )
            if result.is_best:
                self.best_weights = self.model.applied_weights()
            self.history.append(result)
            yield result

    def validate(self, batches: Iterable[Batch]) -> Sums:
        """Sums over the validation batches of all workers."""
        kind = self.kind
        totals = kind.zero(self.model.output.out_features)
        for logits, batch in predict(self.model, batches, device=self.worker.device):
            members = None if batch.targets is None else batch.targets.numpy()
            totals += kind.totals(kind.probabilities(logits), batch.label_ids.numpy(), members)
        return kind.from_vector(self.worker.add_up(totals.to_vector()))

    def _is_best(self, metrics: Metrics) -> bool:
        """By accuracy, of all rows or of each label alike as the loss has it; then by log loss."""
        balanced = self.config.class_weights == "balanced"

        def quality(of: Metrics) -> tuple[float, float]:
            return of.macro_recall if balanced else self.kind.quality(of), -of.log_loss

        return self.best is None or quality(metrics) > quality(self.best.validation)

    def _train_epoch(
        self, epoch: int, batches: Batches, on_step: Callable[[int, int], None] | None
    ) -> np.ndarray:
        """One pass; returns sums over all workers: row losses, rows, tokens, padded tokens."""
        self.module.train()
        sums = torch.zeros(4, dtype=torch.float64, device=self.worker.device)
        for step, batch in enumerate(batches):
            progress = (epoch + step / len(batches)) / self.num_epochs
            sums += self._step(batch.to(self.worker.device), progress)
            if step % _STEPS_BETWEEN_CHECKS == 0 or step == len(batches) - 1:
                loss = self.worker.add_up(sums[:1].cpu().numpy())[0]
                _check_finite(loss, epoch, step, self.config)
            if on_step is not None:
                on_step(step + 1, len(batches))
        return self.worker.add_up(sums.cpu().numpy())

    def _step(self, batch: Batch, progress: float) -> Tensor:
        rate = self.config.learning_rate * rate_share(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        logits = self.module(batch.token_ids, batch.lengths)
        losses = self.kind.losses(logits, batch, label_smoothing=self.config.label_smoothing)
        self.optimizer.zero_grad()
        torch.autograd.backward((losses * batch.weights).sum())
        nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip_norm, foreach=True)
        self.optimizer.step()
        counted = batch.weights > 0
        tokens = (batch.lengths * counted).sum()
        return torch.stack(
            [
                (losses.detach() * counted).sum().double(),
                counted.sum().double(),
                tokens.double(),
                torch.tensor(batch.token_ids.numel(), device=tokens.device).double(),
            ]
        )


def predict(
    model: Classifier, batches: Iterable[Batch], *, device: torch.device
) -> Iterator[tuple[np.ndarray, Batch]]:
    """Logits (float32 [B, C]) of each batch, and the batch, without dropout.

    A batch's logits are fetched after the next one has been sent, so that a GPU never waits for it.
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


def epochs_for(config: TrainingConfig, steps_per_epoch: int) -> int:
    """Epochs that make about `config.steps` steps, at least `min_epochs`, at most `max_epochs`."""
    wanted = math.ceil(config.steps / max(1, steps_per_epoch))
    return min(config.max_epochs, max(config.min_epochs, wanted))


def rate_share(progress: float) -> float:
    """Share of the highest learning rate after a share of the run: linear up, then linear down."""
    if progress < _WARM_UP:
        return max(_FINAL_RATE, progress / _WARM_UP)
    return max(_FINAL_RATE, (1 - progress) / (1 - _WARM_UP))


def _epoch_result(
    epoch: int,
    steps: int,
    sums: np.ndarray,
    metrics: Metrics,
    seconds: float,
    *,
    is_best: bool,
) -> EpochResult:
    loss, rows, tokens, padded = sums
    return EpochResult(
        epoch=epoch + 1,
        steps=steps,
        training_loss=float(loss / rows),
        validation=metrics,
        is_best=is_best,
        seconds=seconds,
        num_tokens=int(tokens),
        padding_share=float(padded / tokens - 1),
    )


def _random_state(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _check_finite(loss: float, epoch: int, step: int, config: TrainingConfig) -> None:
    if not math.isfinite(loss):
        raise RunError(
            f"The training loss is {loss} in epoch {epoch + 1}, step {step + 1}. "
            f"Lower training.learning_rate (now {config.learning_rate:g}) or training.clip_norm "
            f"(now {config.clip_norm:g})."
        )
