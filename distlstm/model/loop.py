"""The training loop: batches in, epoch results out. It depends on no Ray and no file format.

Every step starts from its own random state, derived from seed, epoch, rank and step. So a training
that is resumed, also within an epoch, draws the same dropout masks as an uninterrupted one.

If a training diverges, it restarts once from the end of the last good epoch, with a quarter of the
learning rate. All workers check the same sums, so they do this at the same step.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from distlstm.config import TrainingConfig
from distlstm.errors import RunError
from distlstm.model.batch import Batch
from distlstm.model.classifier import Classifier, recurrent_dtype
from distlstm.model.divergence import (
    RATE_AFTER,
    DivergenceError,
    GoodState,
    check_finite,
    check_loss,
)
from distlstm.model.label_kind import ONE_LABEL, LabelKind, Sums
from distlstm.model.metrics import AllReduce, Metrics, one_worker
from distlstm.model.row_adamw import RowAdamW, UsedRows

_WARM_UP = 0.1
_FINAL_RATE = 0.01
_BETAS = (0.9, 0.99)
_STEPS_BETWEEN_CHECKS = 50


class Batches(Protocol):
    """A known number of batches."""

    def __len__(self) -> int:
        """The number of batches."""
        ...

    def __iter__(self) -> Iterator[Batch]:
        """Each batch once."""
        ...


@dataclass(frozen=True, kw_only=True)
class Worker:
    """The rank of this process among the workers of a run; by default, it is the only one."""

    rank: int = 0
    world_size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    share_weights: Callable[[nn.Module], None] = lambda _model: None
    """Copies the weights of the first worker's model into a model."""
    average: Callable[[Sequence[Tensor]], None] = lambda _gradients: None
    """Averages gradients over the workers, in place."""
    all_reduce: AllReduce = one_worker
    """Sums a float64 vector over the workers."""


class Checkpoints(Protocol):
    """Saves the training within an epoch."""

    def are_due(self) -> bool:
        """Whether this worker wants a checkpoint; if any of them does, all save one."""
        ...

    def save(self) -> None:
        """Save the training, on every worker at the same step. It may end the training."""
        ...


class NoCheckpoints:
    """Never saves within an epoch."""

    def are_due(self) -> bool:
        """Never."""
        return False

    def save(self) -> None:
        """Save nothing."""


@dataclass(frozen=True, kw_only=True)
class BegunEpoch:
    """The first steps of an epoch, from which it goes on."""

    steps: int
    sums: list[float]
    """The `_Sums` of these steps, over all workers."""
    seconds: float


class _Sums(NamedTuple):
    """Sums over training steps: float64 scalars, which are tensors while an epoch runs."""

    loss: Any
    """Over rows with a weight above 0, as are `rows` and `tokens`."""
    rows: Any
    tokens: Any
    padded_tokens: Any
    """Padding included."""
    gradient_norm: Any


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """The result of one epoch; `epoch` counts from 1."""

    epoch: int
    steps: int
    training_loss: float
    """Unweighted mean over the training rows, with dropout."""
    validation: Metrics
    is_best: bool
    seconds: float
    """Duration of the training steps, without validation."""
    num_tokens: int
    """Training tokens of all workers, without padding."""
    padding_share: float
    """Ratio of padding to tokens."""
    highest_rate: float
    """Peak of the learning rate schedule: the configured rate, or less after a divergence."""
    learning_rate: float
    """The learning rate of the last step."""


_NO_CHECKPOINTS = NoCheckpoints()


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
        worker.share_weights(self.model)
        self.embedding = RowAdamW(
            self.model.embedding.weight, betas=_BETAS, weight_decay=config.weight_decay
        )
        self.others = [p for p in self.model.parameters() if p is not self.model.embedding.weight]
        self.optimizer = torch.optim.AdamW(
            self.others,
            lr=config.learning_rate,
            betas=_BETAS,
            weight_decay=config.weight_decay,
            fused=True,
        )
        self.highest_rate = config.learning_rate
        self.history: list[EpochResult] = []
        self.begun: BegunEpoch | None = None
        """The steps of the current epoch up to its last checkpoint; None before one."""
        self.best_weights = self.model.applied_weights()

    @property
    def best(self) -> EpochResult | None:
        """The epoch whose weights are kept: the last one that is better than all before it."""
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
        on_note: Callable[[str], None] | None = None,
        checkpoints: Checkpoints = _NO_CHECKPOINTS,
    ) -> Iterator[EpochResult]:
        """Train until finished; yields after every epoch.

        Args:
            training: this worker's batches of an epoch (from 0), as many for every worker.
            validation: this worker's share of the validation batches.
            on_step: called after a step with the steps done and the steps of this epoch.
            on_note: called with messages for the user.
            checkpoints: saves the training within long epochs.

        Raises:
            RunError: training diverged a second time, or the workers' weights differ.
        """
        good = GoodState.of(self.model, self.optimizer, self.embedding)
        while not self.finished:
            try:
                result = self._epoch(training, validation, on_step, checkpoints)
            except DivergenceError as divergence:
                message = self._lower_rate(divergence)
                good.put_back(self.model, self.optimizer, self.embedding)
                self.begun = None
                if on_note is not None:
                    on_note(message)
                continue
            check_same_weights(self.model, self.worker, result.epoch)
            good = GoodState.of(self.model, self.optimizer, self.embedding)
            if result.is_best:
                self.best_weights = self.model.applied_weights()
            self.history.append(result)
            self.begun = None
            yield result

    def _epoch(
        self,
        training: Callable[[int], Batches],
        validation: Callable[[], Iterable[Batch]],
        on_step: Callable[[int, int], None] | None,
        checkpoints: Checkpoints,
    ) -> EpochResult:
        """Train for one epoch and validate; raises DivergenceError on all workers or on none."""
        epoch = len(self.history)
        started = time.perf_counter() - (self.begun.seconds if self.begun else 0.0)
        batches = training(epoch)
        sums = self._train_epoch(epoch, batches, on_step, checkpoints, started)
        seconds = time.perf_counter() - started
        if (epoch + 1) / self.num_epochs > _WARM_UP:
            check_loss(float(sums.loss / sums.rows), num_labels=self.model.output.out_features)
        metrics = self.kind.metrics(self.validate(validation()))
        check_finite(
            "the validation loss", np.array([metrics.log_loss]), step=max(0, len(batches) - 1)
        )
        return self._epoch_result(len(batches), sums, metrics, seconds)

    def _lower_rate(self, divergence: DivergenceError) -> str:
        """Lower the learning rate to a quarter, once; returns the message for the user."""
        epoch = len(self.history)
        if self.highest_rate < self.config.learning_rate:
            raise RunError(
                f"Training diverged again, in epoch {epoch + 1}, with a learning rate of "
                f"{self.highest_rate:g}: {divergence}. Lower training.learning_rate (now "
                f"{self.config.learning_rate:g}) or training.clip_norm (now "
                f"{self.config.clip_norm:g})."
            ) from divergence
        self.highest_rate = self.config.learning_rate * RATE_AFTER
        start = f"the end of epoch {epoch}" if epoch else "the initial weights"
        return (
            f"Training diverged in epoch {epoch + 1}: {divergence}. It restarts from {start} with "
            f"a learning rate of {self.highest_rate:g} instead of {self.config.learning_rate:g}."
        )

    def validate(self, batches: Iterable[Batch]) -> Sums:
        """Sums over the validation batches of all workers."""
        kind = self.kind
        totals = kind.zero(self.model.output.out_features)
        for logits, batch in predict(self.model, batches, device=self.worker.device):
            members = None if batch.targets is None else batch.targets.numpy()
            totals += kind.totals(kind.probabilities(logits), batch.label_ids.numpy(), members)
        return kind.from_vector(self.worker.all_reduce(totals.to_vector()))

    def _is_best(self, metrics: Metrics) -> bool:
        """Compare by the quality of the kind (balanced: by macro recall), then by log loss."""
        balanced = self.config.class_weights == "balanced"

        def quality(of: Metrics) -> tuple[float, float]:
            return of.macro_recall if balanced else self.kind.quality(of), -of.log_loss

        return self.best is None or quality(metrics) > quality(self.best.validation)

    def _train_epoch(
        self,
        epoch: int,
        batches: Batches,
        on_step: Callable[[int, int], None] | None,
        checkpoints: Checkpoints,
        started: float,
    ) -> _Sums:
        """Train on the batches that are left of an epoch; returns its sums over all workers."""
        self.model.train()
        begun = self.begun or BegunEpoch(steps=0, sums=[0.0] * len(_Sums._fields), seconds=0.0)
        before, first = np.array(begun.sums), begun.steps
        sums = torch.zeros(len(_Sums._fields), dtype=torch.float64, device=self.worker.device)
        for step, batch in enumerate(islice(batches, first, None), first):
            torch.manual_seed(_random_state(self.seed, epoch, self.worker.rank, step))
            progress = (epoch + step / len(batches)) / self.num_epochs
            sums += torch.stack(self._step(batch.to(self.worker.device), progress))
            if on_step is not None:
                on_step(step + 1, len(batches))
            if step % _STEPS_BETWEEN_CHECKS == 0 or step == len(batches) - 1:
                due = self._check(sums, step, checkpoints.are_due())
                if due and step < len(batches) - 1:
                    self.begun = BegunEpoch(
                        steps=step + 1,
                        sums=(before + self.worker.all_reduce(sums.cpu().numpy())).tolist(),
                        seconds=time.perf_counter() - started,
                    )
                    checkpoints.save()
        self.embedding.catch_up()
        return _Sums(*(before + self.worker.all_reduce(sums.cpu().numpy())))

    def _check(self, sums: Tensor, step: int, due: bool) -> bool:
        """Whether any worker wants a checkpoint; DivergenceError if one's sums are not finite."""
        own = _Sums(*sums.cpu().numpy())
        loss, norm, wanted = self.worker.all_reduce(np.array([own.loss, own.gradient_norm, due]))
        check_finite("the loss or the gradient", np.array([loss, norm]), step=step)
        return bool(wanted)

    def _step(self, batch: Batch, progress: float) -> _Sums:
        rate = self.highest_rate * rate_share(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        used = self.embedding.take(batch.used_ids)
        used.weights.requires_grad_(len(self.history) >= self.config.frozen_epochs)
        logits = apply_rows(self.model, used, batch)
        losses = self.kind.losses(logits, batch, label_smoothing=self.config.label_smoothing)
        self.optimizer.zero_grad()
        torch.autograd.backward((losses * batch.weights).sum())
        learning = [*self.others, used.weights]
        self.worker.average([p.grad for p in learning if p.grad is not None])
        norm = nn.utils.clip_grad_norm_(learning, self.config.clip_norm, foreach=True)
        self.optimizer.step()
        self.embedding.step(used, rate=rate)
        counted = batch.weights > 0
        tokens = (batch.lengths * counted).sum()
        return _Sums(
            loss=(losses.detach() * counted).sum().double(),
            rows=counted.sum().double(),
            tokens=tokens.double(),
            padded_tokens=torch.tensor(batch.token_ids.numel(), device=tokens.device).double(),
            gradient_norm=norm.double(),
        )

    def _epoch_result(
        self, steps: int, sums: _Sums, metrics: Metrics, seconds: float
    ) -> EpochResult:
        epoch = len(self.history)
        last_step = (epoch + (steps - 1) / steps) / self.num_epochs
        return EpochResult(
            epoch=epoch + 1,
            steps=steps,
            training_loss=float(sums.loss / sums.rows),
            validation=metrics,
            is_best=self._is_best(metrics),
            seconds=seconds,
            num_tokens=int(sums.tokens),
            padding_share=float(sums.padded_tokens / sums.tokens - 1),
            highest_rate=self.highest_rate,
            learning_rate=self.highest_rate * rate_share(last_step),
        )


def apply_rows(model: Classifier, used: UsedRows, batch: Batch) -> Tensor:
    """Logits [B, C] of a model with the used embedding rows only, so that these get gradients."""
    inputs = used.index_of(batch.token_ids), batch.lengths
    logits: Tensor = functional_call(model, {"embedding.weight": used.weights}, inputs)
    return logits


def check_same_weights(model: Classifier, worker: Worker, epoch: int) -> None:
    """Check that all workers have the same weights, by sum and squared norm of every tensor.

    Each worker writes its own section of a vector; the all-reduce gives all sections to all.

    Raises:
        RunError: the weights differ.
    """
    sums = [(p.double().sum(), p.double().square().sum()) for p in model.parameters()]
    own = torch.stack([torch.stack(pair) for pair in sums]).detach().cpu().numpy().ravel()
    sections = np.zeros((worker.world_size, len(own)))
    sections[worker.rank] = own
    found = worker.all_reduce(sections.ravel()).reshape(sections.shape)
    if not np.allclose(found, found[0], rtol=1e-4, atol=1e-3):
        raise RunError(
            f"The workers' weights differ after epoch {epoch}, so this epoch is discarded. Run the "
            "same command again to resume from the epoch before, or use --workers 1."
        )


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


def epochs_for(config: TrainingConfig, steps_per_epoch: int) -> int:
    """The epochs for about `config.steps` steps, at least `min_epochs`, at most `max_epochs`."""
    wanted = math.ceil(config.steps / max(1, steps_per_epoch))
    return min(config.max_epochs, max(config.min_epochs, wanted))


def rate_share(progress: float) -> float:
    """The learning rate as a share of its peak, by progress (0 to 1): linear up, then down."""
    if progress < _WARM_UP:
        return max(_FINAL_RATE, progress / _WARM_UP)
    return max(_FINAL_RATE, (1 - progress) / (1 - _WARM_UP))


def _random_state(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
