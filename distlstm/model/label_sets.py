"""The kind of labels where each row has any number: sigmoid, binary cross-entropy, thresholds.

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
"""Thresholds are hundredths: precise enough for validation rows, and the all-reduce stays small."""


@dataclass(frozen=True)
class LabelSets:
    """Each row has a set of any number of labels; see `LabelKind`."""

    name: ClassVar[str] = "multi"
    description: ClassVar[str] = "sets of labels"
    gives_sets: ClassVar[bool] = True
    thresholds: tuple[float, ...] = ()
    """By label id; empty until they are fitted, which means 0.5 for all."""

    def check(self, num_labels: int) -> None:
        """Raise a ValueError unless each label has a threshold between 0 and 1."""
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
        """Add thresholds of 1 for labels after its own."""
        return replace(self, thresholds=(*self.thresholds, *[1.0] * num_unknown))

    def true_labels(self, labels: pa.Array, names: LabelSet) -> TrueLabels:
        """Members; the label ids are all 0."""
        return TrueLabels(np.zeros(len(labels), np.int64), names.members_of(labels))

    def losses(self, logits: Tensor, batch: Batch, *, label_smoothing: float) -> Tensor:
        """Mean binary cross-entropy over the labels; smoothing moves targets towards 1/2."""
        targets = _required(batch.targets) * (1 - label_smoothing) + label_smoothing / 2
        return F.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(1)

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Sigmoid: the probabilities of the labels are independent."""
        return sigmoid(logits)

    def decided(self, probabilities: np.ndarray) -> np.ndarray:
        """The labels at or above their threshold; NaN is below."""
        return np.asarray(probabilities >= np.array(self.thresholds or 0.5))

    def certain(self, margins: np.ndarray) -> np.ndarray:
        """The labels with positive margins."""
        return (margins > 0).astype(np.float64)

    def fitted(
        self, probabilities: np.ndarray, members: np.ndarray | None, all_reduce: AllReduce
    ) -> Self:
        """Fit a threshold for each label."""
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
        """The sums for `members`; the label ids are ignored."""
        del label_ids
        return SetTotals.of(probabilities, _required(members), self.decided(probabilities))

    def from_vector(self, vector: np.ndarray) -> SetTotals:
        """The inverse of `SetTotals.to_vector`."""
        return SetTotals.from_vector(vector)

    def metrics(self, totals: SetTotals) -> Metrics:
        """The metrics of these sums."""
        return set_metrics_of(totals)

    def report(self, totals: SetTotals, labels: Sequence[str]) -> dict[str, Any]:
        """The content of `metrics.json`; a confusion matrix is not defined for label sets."""
        return set_report_of(totals, labels)

    def quality(self, metrics: Metrics) -> float:
        """Micro-F1."""
        return metrics.micro_f1


def _required(members: _Array | None) -> _Array:
    if members is None:
        raise ValueError("these rows have no sets of labels")
    return members


def fit_thresholds(
    probabilities: np.ndarray,
    members: np.ndarray,
    *,
    all_reduce: AllReduce = one_worker,
) -> tuple[float, ...]:
    """Find each label's threshold with the highest F1 on held-out rows, in hundredths.

    Thresholds are from 0.01 to 0.99. Among equal ones, the one nearest to 0.5 is taken; a label
    that no row has gets 0.5.

    Args:
        probabilities: [B, C].
        members: [B, C].
        all_reduce: sums a vector over the workers, so that the rows of all workers count.
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
