"""The training of a language model: its loss, and its perplexity after every epoch."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.func import functional_call

from distlstm.config import PretrainingConfig
from distlstm.model.batch import Batch
from distlstm.model.divergence import check_finite
from distlstm.model.language_model import (
    LanguageModel,
    Predictions,
    exact_losses,
    sampled_losses,
)
from distlstm.model.loop import EpochFigures, EpochLoop, Losses, Optimization, Worker
from distlstm.model.recurrent import recurrent_dtype
from distlstm.model.row_adamw import UsedRows


@dataclass(frozen=True, kw_only=True)
class LanguageEpoch(EpochFigures):
    """The result of one epoch of a language model."""

    validation_loss: float
    """Mean loss of a predicted token among all tokens, over validation rows and directions."""

    @property
    def perplexity(self) -> float:
        """Among how many equally probable tokens such a loss would choose."""
        return math.exp(self.validation_loss)


class Pretraining(EpochLoop[LanguageModel, LanguageEpoch]):
    """A language model in training."""

    section = "pretraining"
    result_type = LanguageEpoch

    def __init__(
        self,
        model: LanguageModel,
        config: PretrainingConfig,
        *,
        num_epochs: int,
        seed: int,
        worker: Worker,
        time_budget: float | None = None,
    ) -> None:
        """With a time budget (seconds), the training ends when it is used, if not earlier."""
        self.config = config
        self.time_budget = math.inf if time_budget is None else time_budget
        self._seconds = 0.0
        model.recurrent_dtype = recurrent_dtype(config.precision, worker.device)
        optimization = Optimization(
            learning_rate=config.learning_rate,
            weight_decay=config.weight_decay,
            clip_norm=config.clip_norm,
        )
        super().__init__(model, optimization, num_epochs=num_epochs, seed=seed, worker=worker)

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done, or the time is used."""
        return super().finished or self._seconds_before >= self.time_budget

    @property
    def _seconds_before(self) -> float:
        """Duration of the finished epochs."""
        return sum(result.seconds for result in self.history)

    def progress(self, step: int, steps: int) -> float:
        """The finished share of the epochs or of the time, whichever is larger."""
        return max(super().progress(step, steps), self._seconds / self.time_budget)

    def is_over(self, seconds: float) -> bool:
        """Whether the time is used."""
        self._seconds = self._seconds_before + seconds
        return self._seconds >= self.time_budget

    @property
    def num_classes(self) -> int:
        """The number of tokens that the right one is compared with."""
        return self.config.sampled_tokens

    def losses(self, used: UsedRows, batch: Batch) -> Losses:
        """The loss of each prediction of both directions."""
        found = _predictions(self.model, used, batch)
        values = [
            sampled_losses(
                predictions,
                used.weights,
                right_N=used.index_of(predictions.token_ids_N),
                sampled_S=used.index_of(batch.sampled_ids),
                sampled_ids_S=batch.sampled_ids,
                num_draws=self.config.sampled_tokens,
                vocab_size=self.model.embedding.num_embeddings,
            )
            for predictions in found
        ]
        weights = [batch.weights.index_select(0, each.row_ids_N) for each in found]
        return Losses(torch.cat(values), torch.cat(weights))

    def measure(self, figures: Mapping[str, Any], batches: Iterable[Batch]) -> LanguageEpoch:
        """Measure the perplexity; DivergenceError if it is not finite."""
        loss = self.validate(batches)
        check_finite("the validation loss", np.array([loss]), step=max(0, figures["steps"] - 1))
        is_best = self.best is None or loss < self.best.validation_loss
        return LanguageEpoch(**figures, validation_loss=loss, is_best=is_best)

    @torch.inference_mode()
    def validate(self, batches: Iterable[Batch]) -> float:
        """The mean loss over the validation batches of all workers."""
        self.model.eval()
        sums = np.zeros(2)
        for batch in batches:
            moved = batch.to(self.worker.device)
            for predictions in self.model(moved.token_ids, moved.lengths):
                losses = exact_losses(predictions, self.model.embedding.weight)
                sums += float(losses.double().sum()), len(losses)
        total, count = self.worker.all_reduce(sums)
        return float(total / count)


def epochs_for(config: PretrainingConfig, steps_per_epoch: int) -> int:
    """The epochs for about `config.steps` steps, at most `max_epochs`."""
    return max(1, min(config.max_epochs, round(config.steps / max(1, steps_per_epoch))))


def _predictions(model: LanguageModel, used: UsedRows, batch: Batch) -> list[Predictions]:
    """The predictions with the used embedding rows only, so that these get gradients.

    Their `token_ids_N` are the ids of the vocabulary.
    """
    inputs = used.index_of(batch.token_ids), batch.lengths
    found: list[Predictions] = functional_call(model, {"embedding.weight": used.weights}, inputs)
    return [each._replace(token_ids_N=used.ids[each.token_ids_N]) for each in found]
