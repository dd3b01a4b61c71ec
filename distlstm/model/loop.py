"""The training loop: batches in, epoch results out. It depends on no Ray and no file format.

`Training` (of a classifier) and `Pretraining` (of a language model) say what the loss is and how an
epoch is measured.

Every step starts from its own random state, derived from seed, epoch, rank and step. So a training
that is resumed, also within an epoch, draws the same dropout masks as an uninterrupted one.

If a training diverges, it restarts once from the end of the last good epoch, with a quarter of the
learning rate. All workers check the same sums, so they do this at the same step.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from distlstm.errors import RunError
from distlstm.model.batch import Batch
from distlstm.model.divergence import (
    RATE_AFTER,
    DivergenceError,
    GoodState,
    check_finite,
    check_loss,
)
from distlstm.model.metrics import AllReduce, one_worker
from distlstm.model.recurrent import TokenModel
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
    """Over what has a weight above 0, as are `count` and `tokens`."""
    count: Any
    """Of losses: of rows, or of predicted tokens."""
    tokens: Any
    padded_tokens: Any
    """Padding included."""
    gradient_norm: Any


@dataclass(frozen=True, kw_only=True)
class EpochFigures:
    """The figures of one epoch's steps; `epoch` counts from 1."""

    epoch: int
    steps: int
    training_loss: float
    """Unweighted mean over the training rows or the predicted tokens, with dropout."""
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

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Self:
        """The result that `dataclasses.asdict` made a mapping of."""
        return cls(**row)


@dataclass(frozen=True, kw_only=True)
class Optimization:
    """How weights follow the gradient; the config has fields of the same names."""

    learning_rate: float
    weight_decay: float
    clip_norm: float
    shares: Mapping[str, float] = field(default_factory=dict)
    """Factors of the learning rate, by submodule; 1 for all others."""


class Losses(NamedTuple):
    """The losses of a step, one for each row or for each predicted token."""

    values: Tensor
    """float32 [N]."""
    weights: Tensor
    """float32 [N]: factors in the gradient; losses with 0 are not counted."""


_NO_CHECKPOINTS = NoCheckpoints()
_Model = TypeVar("_Model", bound=TokenModel)
_Result = TypeVar("_Result", bound=EpochFigures)


class EpochLoop(ABC, Generic[_Model, _Result]):
    """A model in training: its weights, the optimizer's state, and the best epoch so far."""

    section: str
    """Of the config, for error messages."""
    result_type: type[_Result]

    def __init__(
        self,
        model: _Model,
        optimization: Optimization,
        *,
        num_epochs: int,
        seed: int,
        worker: Worker,
    ) -> None:
        self.optimization = optimization
        self.num_epochs = num_epochs
        self.seed = seed
        self.worker = worker
        self.model = model.to(worker.device)
        worker.share_weights(self.model)
        table, decay = self.model.embedding.weight, optimization.weight_decay
        self.embedding = RowAdamW(table, betas=_BETAS, weight_decay=decay)
        self.others = [p for p in self.model.parameters() if p is not table]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": list(part.parameters()), "share": self._share(name)}
                for name, part in self.model.named_children()
                if name != "embedding" and any(True for _ in part.parameters())
            ],
            lr=optimization.learning_rate,
            betas=_BETAS,
            weight_decay=decay,
            fused=True,
        )
        self.highest_rate = optimization.learning_rate
        self._rate = 0.0
        """Of the last step."""
        self.history: list[_Result] = []
        self.begun: BegunEpoch | None = None
        """The steps of the current epoch up to its last checkpoint; None before one."""
        self.best_weights = self.model.applied_weights()

    def _share(self, name: str) -> float:
        return self.optimization.shares.get(name, 1.0)

    @property
    def best(self) -> _Result | None:
        """The epoch whose weights are kept: the last one that is better than all before it."""
        return next((result for result in reversed(self.history) if result.is_best), None)

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done."""
        return len(self.history) >= self.num_epochs

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Among so many a loss tells the right one."""

    @abstractmethod
    def losses(self, used: UsedRows, batch: Batch) -> Losses:
        """The losses of a batch, as a function of the weights and of the used embedding rows."""

    @abstractmethod
    def measure(self, figures: Mapping[str, Any], batches: Iterable[Batch]) -> _Result:
        """The result of an epoch: its figures besides `is_best`, and validation."""

    def trains_embedding(self) -> bool:
        """Whether the embedding learns in this epoch."""
        return True

    def progress(self, step: int, steps: int) -> float:
        """The finished share of the training, at a step of this epoch."""
        return (len(self.history) + step / steps) / self.num_epochs

    def is_over(self, seconds: float) -> bool:  # noqa: ARG002 (for those with a time budget)
        """Whether this epoch ends now, after so many seconds of it; the same in all workers."""
        return False

    def run(
        self,
        training: Callable[[int], Batches],
        validation: Callable[[], Iterable[Batch]],
        *,
        on_step: Callable[[int, int], None] | None = None,
        on_note: Callable[[str], None] | None = None,
        checkpoints: Checkpoints = _NO_CHECKPOINTS,
    ) -> Iterator[_Result]:
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
    ) -> _Result:
        """Train for one epoch and validate; raises DivergenceError on all workers or on none."""
        epoch = len(self.history)
        started = time.perf_counter() - (self.begun.seconds if self.begun else 0.0)
        batches = training(epoch)
        sums, steps = self._train_epoch(epoch, batches, on_step, checkpoints, started)
        seconds = time.perf_counter() - started
        if (epoch + 1) / self.num_epochs > _WARM_UP:
            check_loss(float(sums.loss / sums.count), num_classes=self.num_classes)
        return self.measure(self._figures(steps, sums, seconds), validation())

    def _lower_rate(self, divergence: DivergenceError) -> str:
        """Lower the learning rate to a quarter, once; returns the message for the user."""
        epoch, settings = len(self.history), self.optimization
        if self.highest_rate < settings.learning_rate:
            raise RunError(
                f"Training diverged again, in epoch {epoch + 1}, with a learning rate of "
                f"{self.highest_rate:g}: {divergence}. Lower {self.section}.learning_rate (now "
                f"{settings.learning_rate:g}) or {self.section}.clip_norm (now "
                f"{settings.clip_norm:g})."
            ) from divergence
        self.highest_rate = settings.learning_rate * RATE_AFTER
        start = f"the end of epoch {epoch}" if epoch else "the initial weights"
        return (
            f"Training diverged in epoch {epoch + 1}: {divergence}. It restarts from {start} with "
            f"a learning rate of {self.highest_rate:g} instead of {settings.learning_rate:g}."
        )

    def _train_epoch(
        self,
        epoch: int,
        batches: Batches,
        on_step: Callable[[int, int], None] | None,
        checkpoints: Checkpoints,
        started: float,
    ) -> tuple[_Sums, int]:
        """Train on the batches that are left of an epoch; its sums over all workers, and steps."""
        self.model.train()
        begun = self.begun or BegunEpoch(steps=0, sums=[0.0] * len(_Sums._fields), seconds=0.0)
        before, first = np.array(begun.sums), begun.steps
        step = first - 1
        sums = torch.zeros(len(_Sums._fields), dtype=torch.float64, device=self.worker.device)
        for step, batch in enumerate(islice(batches, first, None), first):
            torch.manual_seed(_random_state(self.seed, epoch, self.worker.rank, step))
            progress = self.progress(step, len(batches))
            sums += torch.stack(self._step(batch.to(self.worker.device), progress))
            if on_step is not None:
                on_step(step + 1, len(batches))
            if step % _STEPS_BETWEEN_CHECKS == 0 or step == len(batches) - 1:
                seconds = time.perf_counter() - started
                due, seconds = self._check(sums, step, checkpoints.are_due(), seconds)
                if self.is_over(seconds):
                    break
                if due and step < len(batches) - 1:
                    self.begun = BegunEpoch(
                        steps=step + 1,
                        sums=(before + self.worker.all_reduce(sums.cpu().numpy())).tolist(),
                        seconds=seconds,
                    )
                    checkpoints.save()
        self.embedding.catch_up()
        return _Sums(*(before + self.worker.all_reduce(sums.cpu().numpy()))), step + 1

    def _check(self, sums: Tensor, step: int, due: bool, seconds: float) -> tuple[bool, float]:
        """Whether any worker wants a checkpoint, and the mean of their seconds.

        Raises:
            DivergenceError: the sums of a worker are not finite.
        """
        own = _Sums(*sums.cpu().numpy())
        values = np.array([own.loss, own.gradient_norm, due, seconds / self.worker.world_size])
        loss, norm, wanted, mean_seconds = self.worker.all_reduce(values)
        check_finite("the loss or the gradient", np.array([loss, norm]), step=step)
        return bool(wanted), float(mean_seconds)

    def _step(self, batch: Batch, progress: float) -> _Sums:
        rate = self._rate = self.highest_rate * rate_share(progress)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["share"]
        used = self.embedding.take(batch.used_ids)
        used.weights.requires_grad_(self.trains_embedding())
        losses = self.losses(used, batch)
        self.optimizer.zero_grad()
        torch.autograd.backward((losses.values * losses.weights).sum())
        learning = [*self.others, used.weights]
        self.worker.average([p.grad for p in learning if p.grad is not None])
        norm = nn.utils.clip_grad_norm_(learning, self.optimization.clip_norm, foreach=True)
        self.optimizer.step()
        self.embedding.step(used, rate=rate * self._share("embedding"))
        counted = losses.weights > 0
        tokens = (batch.lengths * (batch.weights > 0)).sum()
        return _Sums(
            loss=(losses.values.detach() * counted).sum().double(),
            count=counted.sum().double(),
            tokens=tokens.double(),
            padded_tokens=torch.tensor(batch.token_ids.numel(), device=tokens.device).double(),
            gradient_norm=norm.double(),
        )

    def _figures(self, steps: int, sums: _Sums, seconds: float) -> dict[str, Any]:
        """The fields of `EpochFigures` besides `is_best`."""
        return {
            "epoch": len(self.history) + 1,
            "steps": steps,
            "training_loss": float(sums.loss / sums.count),
            "seconds": seconds,
            "num_tokens": int(sums.tokens),
            "padding_share": float(sums.padded_tokens / sums.tokens - 1),
            "highest_rate": self.highest_rate,
            "learning_rate": self._rate,
        }


def check_same_weights(model: nn.Module, worker: Worker, epoch: int) -> None:
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


def rate_share(progress: float) -> float:
    """The learning rate as a share of its peak, by progress (0 to 1): linear up, then down."""
    if progress < _WARM_UP:
        return max(_FINAL_RATE, progress / _WARM_UP)
    return max(_FINAL_RATE, (1 - progress) / (1 - _WARM_UP))


def _random_state(*parts: int) -> int:
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> np.uint64(1))
