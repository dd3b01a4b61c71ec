"""The kind of labels where each row has exactly one: softmax and cross-entropy.

Shape letters: B rows, C labels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import pyarrow as pa
from torch import Tensor
from torch.nn import functional as F

from distlstm.model.batch import Batch
from distlstm.model.calibration import LossAt, cross_entropy, softmax
from distlstm.model.metrics import AllReduce, Metrics, Totals, TrueLabels, metrics_of, report_of
from distlstm.text.labels import LabelSet


@dataclass(frozen=True)
class OneLabel:
    """Each row has exactly one label; see `LabelKind`."""

    name: ClassVar[str] = "single"
    description: ClassVar[str] = "one label per row"
    gives_sets: ClassVar[bool] = False
    thresholds: tuple[float, ...] = ()

    def check(self, num_labels: int) -> None:
        """Raise a ValueError if there are thresholds."""
        if self.thresholds:
            raise ValueError(f"it has thresholds, but one label per row, of {num_labels} labels")

    def to_metadata(self) -> dict[str, Any]:
        """No entries: this kind is the default in `model.json`."""
        return {}

    def loss_at(self, logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> LossAt:
        """Cross-entropy."""
        return cross_entropy(logits, targets, weights)

    def with_unknown(self, num_unknown: int) -> Self:
        """Unchanged: the most probable label never has probability 0."""
        del num_unknown
        return self

    def true_labels(self, labels: pa.Array, names: LabelSet) -> TrueLabels:
        """Label ids only."""
        label_ids = names.ids_of(labels).to_numpy(zero_copy_only=False)
        return TrueLabels(label_ids.astype(np.int64), None)

    def losses(self, logits: Tensor, batch: Batch, *, label_smoothing: float) -> Tensor:
        """Cross-entropy with the smoothed label, or with the label probabilities of the row.

        Label probabilities are not smoothed, because they express uncertainty themselves.
        """
        if batch.targets is not None:
            return F.cross_entropy(logits, batch.targets, reduction="none")
        return F.cross_entropy(
            logits, batch.label_ids, reduction="none", label_smoothing=label_smoothing
        )

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Softmax: the probabilities of a row sum to 1."""
        return softmax(logits)

    def decided(self, probabilities: np.ndarray) -> np.ndarray:
        """The most probable label."""
        return np.asarray(probabilities.argmax(1)[:, None] == np.arange(probabilities.shape[1]))

    def certain(self, margins: np.ndarray) -> np.ndarray:
        """The label with the largest margin."""
        return self.decided(margins).astype(np.float64)

    def fitted(
        self, probabilities: np.ndarray, members: np.ndarray | None, all_reduce: AllReduce
    ) -> Self:
        """Unchanged: there are no thresholds to fit."""
        del probabilities, members, all_reduce
        return self

    def zero(self, num_labels: int) -> Totals:
        """The sums over no rows."""
        return Totals.zero(num_labels)

    def totals(
        self, probabilities: np.ndarray, label_ids: np.ndarray, members: np.ndarray | None
    ) -> Totals:
        """The sums for the label ids; `members` are ignored."""
        del members
        return Totals.of(probabilities, label_ids)

    def from_vector(self, vector: np.ndarray) -> Totals:
        """The inverse of `Totals.to_vector`."""
        return Totals.from_vector(vector)

    def metrics(self, totals: Totals) -> Metrics:
        """The metrics of these sums."""
        return metrics_of(totals)

    def report(self, totals: Totals, labels: Sequence[str]) -> dict[str, Any]:
        """The content of `metrics.json`, with a confusion matrix."""
        return report_of(totals, labels)

    def quality(self, metrics: Metrics) -> float:
        """Accuracy."""
        return metrics.accuracy
