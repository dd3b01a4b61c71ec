"""Metrics of a classifier, as sums that are added over batches and workers and divided once.

Definitions are those of scikit-learn (a test compares them); the expected calibration error is that
of Guo et al. 2017, On Calibration of Modern Neural Networks, with 15 bins of equal width.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np

_BINS = 15
_SMALLEST = float(np.finfo(np.float64).eps)


AllReduce = Callable[[np.ndarray], np.ndarray]
"""Sums a float64 vector over the workers; every worker gets the sum."""


def one_worker(vector: np.ndarray) -> np.ndarray:
    """The all-reduce of a single worker: the vector itself."""
    return vector


class TrueLabels(NamedTuple):
    """The true labels of B rows: `label_ids` (int64 [B]), and of label sets `members` [B, C]."""

    label_ids: np.ndarray
    members: np.ndarray | None


@dataclass(frozen=True)
class Totals:
    """Addable sums over rows, for C labels.

    `confusion` [C, C] counts rows by true label (rows) and predicted label (columns). `log_loss` is
    the sum over rows. `bins` [15, 3] are, by confidence of the prediction: the number of rows, the
    sum of their confidences, and the number of correct predictions. All are float64.
    """

    confusion: np.ndarray
    log_loss: float
    bins: np.ndarray

    @classmethod
    def zero(cls, num_labels: int) -> "Totals":
        """The sums over no rows."""
        return cls(np.zeros((num_labels, num_labels)), 0.0, np.zeros((_BINS, 3)))

    @classmethod
    def of(cls, probabilities: np.ndarray, label_ids: np.ndarray) -> "Totals":
        """Sums over rows with these probabilities [B, C] and true label ids [B]."""
        num_labels = probabilities.shape[1]
        predicted = probabilities.argmax(1)
        confidence = probabilities.max(1)
        right = predicted == label_ids
        pairs = np.bincount(label_ids * num_labels + predicted, minlength=num_labels**2)
        of_truth = probabilities[np.arange(len(label_ids)), label_ids]
        bin_of = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
        columns = [np.ones(len(right)), confidence, right.astype(np.float64)]
        bins = [np.bincount(bin_of, weights=column, minlength=_BINS) for column in columns]
        return cls(
            pairs.reshape(num_labels, num_labels).astype(np.float64),
            float(-np.log(np.maximum(of_truth, _SMALLEST)).sum()),
            np.stack(bins, axis=1),
        )

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            self.confusion + other.confusion, self.log_loss + other.log_loss, self.bins + other.bins
        )

    def to_vector(self) -> np.ndarray:
        """All sums in one float64 vector, for an all-reduce."""
        return np.concatenate([self.confusion.ravel(), [self.log_loss], self.bins.ravel()])

    def renumbered(self, ids: Sequence[int], num_labels: int) -> "Totals":
        """The same sums among more labels: label id i becomes `ids[i]`."""
        confusion = np.zeros((num_labels, num_labels))
        confusion[np.ix_(ids, ids)] = self.confusion
        return Totals(confusion, self.log_loss, self.bins)

    @classmethod
    def from_vector(cls, vector: np.ndarray) -> "Totals":
        """The inverse of `to_vector`."""
        num_labels = math.isqrt(len(vector) - 1 - 3 * _BINS)
        confusion, log_loss, bins = np.split(vector, [num_labels**2, num_labels**2 + 1])
        return cls(
            confusion.reshape(num_labels, num_labels), float(log_loss[0]), bins.reshape(_BINS, 3)
        )


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """The figures of an evaluation; shares are from 0 to 1."""

    num_rows: int
    accuracy: float
    macro_f1: float
    """Unweighted mean F1 over the labels that occur or are predicted."""
    macro_recall: float
    micro_f1: float
    weighted_f1: float
    """Mean F1 weighted by the rows of each label."""
    mcc: float
    """Matthews correlation coefficient (Gorodkin's, for any number of labels)."""
    log_loss: float
    """Mean negative log-probability of the true label, in nats."""
    ece: float
    """Expected calibration error of the predicted label's probability."""


@dataclass(frozen=True)
class LabelMetrics:
    """Figures of each label, in label order: float64 [C]."""

    precision: np.ndarray
    recall: np.ndarray
    f1: np.ndarray
    support: np.ndarray
    """Rows that have the label."""

    @classmethod
    def of(cls, *, hits: np.ndarray, support: np.ndarray, predicted: np.ndarray) -> Self:
        """From the rows by label: true positives, true, predicted; 0 / 0 gives 0."""
        return cls(
            precision=_ratio(hits, predicted),
            recall=_ratio(hits, support),
            f1=_ratio(2 * hits, support + predicted),
            support=support,
        )

    def by_name(self, labels: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The figures by label name, as in `metrics.json`."""
        figures = {name: values.tolist() for name, values in vars(self).items()}
        rows = {
            label: {name: values[i] for name, values in figures.items()}
            for i, label in enumerate(labels)
        }
        for row in rows.values():
            row["support"] = int(row["support"])
        return rows


def label_metrics(totals: Totals) -> LabelMetrics:
    """Precision, recall, F1 and support by label."""
    return LabelMetrics.of(
        hits=np.diag(totals.confusion),
        support=totals.confusion.sum(1),
        predicted=totals.confusion.sum(0),
    )


def metrics_of(totals: Totals) -> Metrics:
    """The metrics of these sums."""
    by_label = label_metrics(totals)
    count = totals.confusion.sum()
    rows = max(count, 1.0)
    accuracy = float(np.trace(totals.confusion) / rows)
    present = (by_label.support + totals.confusion.sum(0)) > 0
    return Metrics(
        num_rows=int(count),
        accuracy=accuracy,
        macro_f1=mean_of(by_label.f1[present]),
        macro_recall=mean_of(by_label.recall[present]),
        micro_f1=accuracy,
        weighted_f1=float((by_label.f1 * by_label.support).sum() / rows),
        mcc=_matthews(totals.confusion),
        log_loss=float(totals.log_loss / rows),
        ece=calibration_error(totals.bins),
    )


def report_of(totals: Totals, labels: Sequence[str]) -> dict[str, Any]:
    """The content of `metrics.json`: metrics, figures by label, and the confusion matrix."""
    return {
        **vars(metrics_of(totals)),
        "labels": list(labels),
        "per_label": label_metrics(totals).by_name(labels),
        "confusion_matrix": totals.confusion.astype(int).tolist(),
    }


def _matthews(confusion: np.ndarray) -> float:
    support, predicted, count = confusion.sum(1), confusion.sum(0), confusion.sum()
    covariance = np.trace(confusion) * count - support @ predicted
    spread = (count**2 - predicted @ predicted) * (count**2 - support @ support)
    return float(covariance / np.sqrt(spread)) if spread > 0 else 0.0


def calibration_error(bins: np.ndarray) -> float:
    """The expected calibration error of the `bins` of `Totals`."""
    count, confidence, right = bins.T
    return float(np.abs(confidence - right).sum() / max(count.sum(), 1.0))


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(part, whole, out=np.zeros_like(part), where=whole > 0))


def mean_of(values: np.ndarray) -> float:
    """The mean; 0 for no values."""
    return float(values.mean()) if len(values) else 0.0
