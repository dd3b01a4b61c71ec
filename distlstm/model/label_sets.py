"""Rows that have any number of labels: a sigmoid, binary cross-entropy and a threshold for each.

Shape letters: B rows, C labels. `members` [B, C] is 1 where a row has the label.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import pyarrow as pa
from torch import Tensor
from torch.nn import functional as F

from distlstm.model.batch import Batch
from distlstm.model.calibration import LossAt, binary_cross_entropy, sigmoid
from distlstm.model.metrics import AllReduce, Metrics, TrueLabels, one_worker
from distlstm.model.set_metrics import SetTotals, set_metrics_of, set_report_of
from distlstm.text.labels import LabelSet

_Array = TypeVar("_Array", Tensor, np.ndarray)
_GRID = 100
"""Thresholds are hundredths: fine enough for validation rows, and sums over workers stay small."""


@dataclass(frozen=True)
class LabelSets:
    """The kind of rows that have any number of labels."""

    name: ClassVar[str] = "multi"
    description: ClassVar[str] = "sets of labels"
    gives_sets: ClassVar[bool] = True
    thresholds: tuple[float, ...] = ()
    """By label id; 0.5 for all while they are not fitted."""

    def check(self, num_labels: int) -> None:
        """Raise a ValueError if there is not one threshold between 0 and 1 for each label."""
        right = all(type(value) is float and 0 < value < 1 for value in self.thresholds)
        if not right or len(self.thresholds) != num_labels:
            raise ValueError(f"its thresholds are not {num_labels} numbers between 0 and 1")

    def to_metadata(self) -> dict[str, Any]:
        """Name and thresholds."""
        return {"kind": self.name, "thresholds": list(self.thresholds)}

    def loss_at(self, logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> LossAt:
        """Binary cross-entropy over all labels."""
        return binary_cross_entropy(logits, targets, weights)

    def with_unknown(self, num_unknown: int) -> Self:
        """The same with thresholds of 1 for labels behind its own."""
        return replace(self, thresholds=(*self.thresholds, *[1.0] * num_unknown))

    def true_labels(self, labels: pa.Array, names: LabelSet) -> TrueLabels:
        """Members; the label ids are all 0."""
        return TrueLabels(np.zeros(len(labels), np.int64), names.members_of(labels))

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


def fit_thresholds(
    probabilities: np.ndarray,
    members: np.ndarray,
    *,
    all_reduce: AllReduce = one_worker,
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
