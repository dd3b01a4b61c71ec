"""What a row's answer is: exactly one label, or a set of any number of them.

Whatever depends on that in training, validation, evaluation and prediction is a member of
`LabelKind`; `OneLabel` and `LabelSets` are the two kinds.
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
    def name(self) -> str:
        """The name in `corpus.json` and `model.json`: `single` or `multi`."""
        ...

    @property
    def description(self) -> str:
        """What a row has, for messages: `one label a row` or `sets of labels`."""
        ...

    @property
    def gives_sets(self) -> bool:
        """Whether a row's answer is a list of labels."""
        ...

    @property
    def thresholds(self) -> tuple[float, ...]:
        """By label id; empty if there are none."""
        ...

    def check(self, num_labels: int) -> None:
        """Raise a ValueError if the thresholds are not those of this many labels."""
        ...

    def to_metadata(self) -> dict[str, Any]:
        """The entries of `model.json`, from which `label_kind` makes the same kind."""
        ...

    def losses(self, logits: Tensor, batch: Batch, *, label_smoothing: float) -> Tensor:
        """Each row's loss, [B]."""
        ...

    def loss_at(self, logits: np.ndarray, targets: np.ndarray, weights: np.ndarray) -> LossAt:
        """The loss of several models' weighted logits [K, B, C]; see `fit_weights`."""
        ...

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Probabilities (float64 [B, C]) of logits."""
        ...

    def decided(self, probabilities: np.ndarray) -> np.ndarray:
        """Which labels each row gets: bool [B, C]."""
        ...

    def certain(self, margins: np.ndarray) -> np.ndarray:
        """The answer to margins [B, C], as probabilities 0 and 1."""
        ...

    def fitted(
        self, probabilities: np.ndarray, members: np.ndarray | None, all_reduce: AllReduce
    ) -> Self:
        """The same with thresholds fitted on held-out rows, if it has any; see `fit_thresholds`."""
        ...

    def with_unknown(self, num_unknown: int) -> Self:
        """The same with labels behind its own that are never predicted."""
        ...

    def true_labels(self, labels: pa.Array, names: LabelSet) -> TrueLabels:
        """The numbers of a label column: strings, or lists of strings."""
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
        """The figure by which the best epoch is chosen."""
        ...


def kind_of(metadata: Mapping[str, Any]) -> LabelKind:
    """The kind of a model, by its `model.json`; raises ValueError if there is no such kind."""
    return label_kind(metadata.get("kind", OneLabel.name), metadata.get("thresholds", ()))


def label_kind(name: str, thresholds: Sequence[float] = ()) -> LabelKind:
    """The kind of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in (OneLabel.name, LabelSets.name):
        raise ValueError(f"its kind of labels is {name!r}")
    return ONE_LABEL if name == OneLabel.name else LabelSets(tuple(thresholds))
