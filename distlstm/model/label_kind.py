"""The kind of labels: each row has exactly one label, or a set of any number of labels.

`OneLabel` and `LabelSets` are the two kinds. Everything in training, validation, evaluation and
prediction that depends on the kind is a member of `LabelKind`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, Self

import numpy as np
import pyarrow as pa
from torch import Tensor

from distlstm.model.batch import Batch
from distlstm.model.calibration import LossAt
from distlstm.model.label_sets import LabelSets
from distlstm.model.metrics import AllReduce, Metrics, TrueLabels
from distlstm.model.one_label import OneLabel
from distlstm.text.labels import LabelSet

ONE_LABEL = OneLabel()


class Sums(Protocol):
    """Sums over rows, from which the metrics are calculated; they can be added."""

    @property
    def log_loss(self) -> float:
        """The sum over all rows."""
        ...

    def __add__(self, other: Any) -> "Sums":
        """The sums over the rows of both."""
        ...

    def to_vector(self) -> np.ndarray:
        """All sums in one float64 vector, for an all-reduce."""
        ...

    def renumbered(self, ids: Sequence[int], num_labels: int) -> "Sums":
        """The same sums with more labels: label id i becomes `ids[i]`."""
        ...


class LabelKind(Protocol):
    """All that depends on the kind of labels.

    Shape letters: B rows, C labels. `members` [B, C] is 1 where a row has the label.
    """

    @property
    def name(self) -> str:
        """The name in `corpus.json` and `model.json`: `single` or `multi`."""
        ...

    @property
    def description(self) -> str:
        """The kind in messages: `one label per row` or `sets of labels`."""
        ...

    @property
    def gives_sets(self) -> bool:
        """Whether a row's answer is a list of labels."""
        ...

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The thresholds by label id; empty if the kind has none."""
        ...

    def check(self, num_labels: int) -> None:
        """Raise a ValueError if the thresholds do not fit this number of labels."""
        ...

    def to_metadata(self) -> dict[str, Any]:
        """The entries of `model.json`, from which `kind_of` creates the same kind."""
        ...

    def losses(self, logits: Tensor, batch: Batch, *, label_smoothing: float) -> Tensor:
        """The loss of each row, [B]."""
        ...

    def loss_at(self, logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> LossAt:
        """The loss of the weighted sum of K models' logits [K, B, C]; see `fit_weights`."""
        ...

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """The probabilities (float64 [B, C]) of logits [B, C]."""
        ...

    def decided(self, probabilities: np.ndarray) -> np.ndarray:
        """The predicted labels of each row: bool [B, C]."""
        ...

    def certain(self, margins: np.ndarray) -> np.ndarray:
        """The prediction for margins [B, C], as probabilities 0 and 1."""
        ...

    def fitted(
        self, probabilities: np.ndarray, members: np.ndarray | None, all_reduce: AllReduce
    ) -> Self:
        """This kind with thresholds fitted on held-out rows, if it has any (`fit_thresholds`)."""
        ...

    def with_unknown(self, num_unknown: int) -> Self:
        """This kind with more labels at the end, which are never predicted."""
        ...

    def true_labels(self, labels: pa.Array, names: LabelSet) -> TrueLabels:
        """The true labels of a label column of strings, or of lists of strings."""
        ...

    def zero(self, num_labels: int) -> Sums:
        """The sums over no rows."""
        ...

    def totals(
        self, probabilities: np.ndarray, label_ids: np.ndarray, members: np.ndarray | None
    ) -> Sums:
        """The sums over rows with these probabilities and true labels."""
        ...

    def from_vector(self, vector: np.ndarray) -> Sums:
        """The inverse of `Sums.to_vector`."""
        ...

    def metrics(self, totals: Any) -> Metrics:
        """The metrics of these sums."""
        ...

    def report(self, totals: Any, labels: Sequence[str]) -> dict[str, Any]:
        """The content of `metrics.json`."""
        ...

    def quality(self, metrics: Metrics) -> float:
        """The metric by which the best epoch is chosen."""
        ...


def kind_of(metadata: Mapping[str, Any]) -> LabelKind:
    """The kind of a model, from its `model.json`; raises ValueError if the kind is unknown."""
    return label_kind(metadata.get("kind", OneLabel.name), metadata.get("thresholds", ()))


def label_kind(name: str, thresholds: Sequence[float] = ()) -> LabelKind:
    """The kind with this name.

    Raises:
        ValueError: there is none.
    """
    if name not in (OneLabel.name, LabelSets.name):
        raise ValueError(f"its kind of labels, {name!r}, is unknown")
    return ONE_LABEL if name == OneLabel.name else LabelSets(tuple(thresholds))
