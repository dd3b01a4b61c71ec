"""What a row's answer is: exactly one label, or a set of any number of them.

Whatever depends on that in training, validation and prediction is a method of `LabelKind`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, Self, TypeVar

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from distlstm.model.batch import Batch
from distlstm.model.calibration import sigmoid, softmax
from distlstm.model.metrics import Metrics, Totals, metrics_of, report_of
from distlstm.model.set_metrics import SetTotals, set_metrics_of, set_report_of

KindName = Literal["single", "multi"]
_Array = TypeVar("_Array", Tensor, np.ndarray)
AllReduce = Callable[[np.ndarray], np.ndarray]
"""Adds a vector up over workers."""
_GRID = 100
"""Thresholds are hundredths: fine enough for validation rows, and sums over workers stay small."""


class Sums(Protocol):
    """Addable sums over rows, of one kind."""

    @property
    def log_loss(self) -> float:
        """Of all rows together."""
        ...

    def __add__(self, other: Any) -> "Sums":
        """Those over the rows of both."""
        ...

    def to_vector(self) -> np.ndarray:
        """All sums in one float64 vector."""
        ...

    def renumbered(self, ids: Sequence[int], num_labels: int) -> "Sums":
        """The same sums among more labels: label id i becomes `ids[i]`."""
        ...


class LabelKind(Protocol):
    """Shape letters: B rows, C labels. `members` [B, C] is 1 where a row has the label."""

    @property
    def name(self) -> KindName:
        """As `model.json` has it."""
        ...

    @property
    def thresholds(self) -> tuple[float, ...]:
        """By label id; empty if there are none."""
        ...

    def losses(self, logits: Tensor, batch: Batch, *, label_smoothing: float) -> Tensor:
        """Each row's loss, [B]."""
        ...

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (float64 [B, C]) of logits."""
        ...

    def decided(self, probabilities: np.ndarray) -> np.ndarray:
        """Which labels each row gets: bool [B, C]."""
        ...

    def certain(self, margins: np.ndarray) -> np.ndarray:
        """As probabilities 0 and 1, what a model answers whose margins [B, C] are these."""
        ...

    def fitted(
        self, probabilities: np.ndarray, members: np.ndarray | None, all_reduce: AllReduce
    ) -> Self:
        """The same with thresholds fitted on held-out rows, if it has any; see `fit_thresholds`."""
        ...

    def zero(self, num_labels: int) -> Sums:
        """The sums over no rows."""
        ...

    def totals(
        self, probabilities: np.ndarray, label_ids: np.ndarray, members: np.ndarray | None
    ) -> Sums:
        """Sums over rows of these true labels."""
        ...

    def from_vector(self, vector: np.ndarray) -> Sums:
        """What `to_vector` made."""
        ...

    def metrics(self, totals: Any) -> Metrics:
        """Divide the sums."""
        ...

    def report(self, totals: Any, labels: Sequence[str]) -> dict[str, Any]:
        """The content of `metrics.json`."""
        ...

    def quality(self, metrics: Metrics) -> float:
        """What the best epoch has most of."""
        ...


@dataclass(frozen=True)
class OneLabel:
    """Exactly one label a row: softmax and cross-entropy."""

    name: KindName = "single"
    thresholds: tuple[float, ...] = ()

    def losses(self, logits: Tensor, batch: Batch, *, label_smoothing: float) -> Tensor:
        """Cross-entropy against the label, smoothed, or against the row's distribution.

        A distribution is not smoothed; it says by itself how sure of a label one can be.
        """
        if batch.targets is not None:
            return F.cross_entropy(logits, batch.targets, reduction="none")
        return F.cross_entropy(
            logits, batch.label_ids, reduction="none", label_smoothing=label_smoothing
        )

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Those of a row sum to 1."""
        return softmax(logits)

    def decided(self, probabilities: np.ndarray) -> np.ndarray:
        """The most probable label."""
        return np.asarray(probabilities.argmax(1)[:, None] == np.arange(probabilities.shape[1]))

    def certain(self, margins: np.ndarray) -> np.ndarray:
        """The label of the largest margin."""
        return self.decided(margins).astype(np.float64)

    def fitted(
        self, probabilities: np.ndarray, members: np.ndarray | None, all_reduce: AllReduce
    ) -> Self:
        """Nothing is fitted."""
        del probabilities, members, all_reduce
        return self

    def zero(self, num_labels: int) -> Totals:
        """The sums over no rows."""
        return Totals.zero(num_labels)

    def totals(
        self, probabilities: np.ndarray, label_ids: np.ndarray, members: np.ndarray | None
    ) -> Totals:
        """Against the label ids alone."""
        del members
        return Totals.of(probabilities, label_ids)

    def from_vector(self, vector: np.ndarray) -> Totals:
        """What `to_vector` made."""
        return Totals.from_vector(vector)

    def metrics(self, totals: Totals) -> Metrics:
        """Divide the sums."""
        return metrics_of(totals)

    def report(self, totals: Totals, labels: Sequence[str]) -> dict[str, Any]:
        """With a confusion matrix."""
        return report_of(totals, labels)

    def quality(self, metrics: Metrics) -> float:
        """Accuracy."""
        return metrics.accuracy


@dataclass(frozen=True)
class LabelSets:
    """Any number of labels a row: a sigmoid, binary cross-entropy and a threshold for each."""

    thresholds: tuple[float, ...] = ()
    """By label id; 0.5 for all while they are not fitted."""
    name: KindName = "multi"

    def losses(self, logits: Tensor, batch: Batch, *, label_smoothing: float) -> Tensor:
        """Binary cross-entropy, the mean over the labels; smoothing moves targets towards 1/2."""
        targets = _there(batch.targets) * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Each between 0 and 1 by itself."""
        return sigmoid(logits)

    def decided(self, probabilities: np.ndarray) -> np.ndarray:
        """The labels at or above their threshold; what is no number is below."""
        return np.asarray(probabilities >= np.array(self.thresholds or 0.5))

    def certain(self, margins: np.ndarray) -> np.ndarray:
        """The labels of positive margin."""
        return (margins > 0).astype(np.float64)

    def fitted(
        self, probabilities: np.ndarray, members: np.ndarray | None, all_reduce: AllReduce
    ) -> Self:
        """With a threshold for each label."""
        if members is None:  # a worker without a row
            members = np.zeros_like(probabilities)
        return replace(
            self, thresholds=fit_thresholds(probabilities, members, all_reduce=all_reduce)
        )

    def zero(self, num_labels: int) -> SetTotals:
        """The sums over no rows."""
        return SetTotals.zero(num_labels)

    def totals(
        self, probabilities: np.ndarray, label_ids: np.ndarray, members: np.ndarray | None
    ) -> SetTotals:
        """Against the members alone."""
        del label_ids
        return SetTotals.of(probabilities, _there(members), self.decided(probabilities))

    def from_vector(self, vector: np.ndarray) -> SetTotals:
        """What `to_vector` made."""
        return SetTotals.from_vector(vector)

    def metrics(self, totals: SetTotals) -> Metrics:
        """Divide the sums."""
        return set_metrics_of(totals)

    def report(self, totals: SetTotals, labels: Sequence[str]) -> dict[str, Any]:
        """Without a confusion matrix: a row has no one label that another stands in for."""
        return set_report_of(totals, labels)

    def quality(self, metrics: Metrics) -> float:
        """Micro-F1."""
        return metrics.micro_f1


def _there(members: _Array | None) -> _Array:
    if members is None:
        raise ValueError("these rows have no sets of labels")
    return members


ONE_LABEL = OneLabel()


def label_kind(name: str, thresholds: Sequence[float] = ()) -> LabelKind:
    """The kind of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in ("single", "multi"):
        raise ValueError(f"its kind of labels is {name!r}")
    return ONE_LABEL if name == "single" else LabelSets(tuple(thresholds))


def fit_thresholds(
    probabilities: np.ndarray,
    members: np.ndarray,
    *,
    all_reduce: AllReduce = lambda vector: vector,
) -> tuple[float, ...]:
    """Each label's threshold with the highest F1 on held-out rows ([B, C] both), in hundredths.

    From 0.01 to 0.99; the one nearest 0.5 of equals, and 0.5 for a label that no row has. With
    `all_reduce`, which adds a vector up over workers, the rows are those of all workers together.
    """
    num_labels = probabilities.shape[1]
    cells = np.floor(probabilities * _GRID + 1e-9).astype(np.int64).clip(0, _GRID)
    cells += np.arange(num_labels) * (_GRID + 1)
    size = num_labels * (_GRID + 1)
    counts = np.stack(
        [
            np.bincount(cells[chosen], minlength=size)
            for chosen in (members > 0, np.ones_like(members, bool))
        ]
    ).astype(np.float64)
    summed = all_reduce(counts.ravel()).reshape(2, num_labels, _GRID + 1)
    hits, predicted = np.flip(np.flip(summed, -1).cumsum(-1), -1)
    support = hits[:, :1]
    grid = np.arange(1, _GRID)
    f1 = (2 * hits / np.maximum(support + predicted, 1))[:, grid]
    by_distance = np.argsort(np.abs(grid - _GRID // 2), kind="stable")
    best = grid[by_distance[f1[:, by_distance].argmax(1)]]
    return tuple((best / _GRID).tolist())
