"""Metrics of a classifier that gives each row a set of labels, as sums over rows.

Definitions are those of scikit-learn for an indicator matrix (a test compares them). The Matthews
coefficient, the log loss and the calibration error, which need one label per row, are taken over
decisions: one for each row and label.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from distlstm.model.metrics import LabelMetrics, Metrics, calibration_error, mean_of

_BINS = 15
_SMALLEST = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class SetTotals:
    """Addable sums over rows, for C labels.

    `counts` [C, 3] are the rows by label: true positives, true, predicted. `num_rows` counts all
    rows, `num_exact` those with exactly the right labels. `log_loss` is the sum over rows of the
    mean over labels. `bins` [15, 3] are, by probability: the number of decisions, the sum of their
    probabilities, and the number of labels that the rows have.
    """

    counts: np.ndarray
    num_rows: float
    num_exact: float
    log_loss: float
    bins: np.ndarray

    @classmethod
    def zero(cls, num_labels: int) -> "SetTotals":
        """The sums over no rows."""
        return cls(np.zeros((num_labels, 3)), 0.0, 0.0, 0.0, np.zeros((_BINS, 3)))

    @classmethod
    def of(cls, probabilities: np.ndarray, members: np.ndarray, decided: np.ndarray) -> "SetTotals":
        """Sums over rows with these probabilities, true labels and predicted labels, all [B, C]."""
        has = members > 0
        likely = np.clip(np.where(has, probabilities, 1 - probabilities), _SMALLEST, 1)
        bin_of = np.minimum((probabilities * _BINS).astype(np.int64), _BINS - 1).ravel()
        columns = [np.ones(has.size), probabilities.ravel(), has.ravel().astype(np.float64)]
        bins = [np.bincount(bin_of, weights=column, minlength=_BINS) for column in columns]
        return cls(
            np.stack([(has & decided).sum(0), has.sum(0), decided.sum(0)], axis=1).astype(float),
            float(len(has)),
            float((has == decided).all(1).sum()),
            float(-np.log(likely).sum() / has.shape[1]),
            np.stack(bins, axis=1),
        )

    def __add__(self, other: "SetTotals") -> "SetTotals":
        return SetTotals.from_vector(self.to_vector() + other.to_vector())

    def to_vector(self) -> np.ndarray:
        """All sums in one float64 vector, for an all-reduce."""
        scalars = [self.num_rows, self.num_exact, self.log_loss]
        return np.concatenate([scalars, self.bins.ravel(), self.counts.ravel()])

    @classmethod
    def from_vector(cls, vector: np.ndarray) -> "SetTotals":
        """The inverse of `to_vector`."""
        scalars, bins, counts = np.split(vector, [3, 3 + 3 * _BINS])
        rows, exact, log_loss = map(float, scalars)
        return cls(counts.reshape(-1, 3), rows, exact, log_loss, bins.reshape(_BINS, 3))

    def renumbered(self, ids: Sequence[int], num_labels: int) -> "SetTotals":
        """The same sums among more labels: label id i becomes `ids[i]`."""
        counts = np.zeros((num_labels, 3))
        counts[ids] = self.counts
        bins = self.bins.copy()  # the decisions on other labels: none of them was wrong
        bins[0, 0] += self.num_rows * (num_labels - len(self.counts))
        log_loss = self.log_loss * len(self.counts) / num_labels
        return SetTotals(counts, self.num_rows, self.num_exact, log_loss, bins)


def set_label_metrics(totals: SetTotals) -> LabelMetrics:
    """Precision, recall, F1 and support by label."""
    hits, support, predicted = totals.counts.T
    return LabelMetrics.of(hits=hits, support=support, predicted=predicted)


def set_metrics_of(totals: SetTotals) -> Metrics:
    """The metrics of these sums; `accuracy` is the share of rows with exactly the right labels."""
    by_label, rows = set_label_metrics(totals), max(totals.num_rows, 1.0)
    hits, support, predicted = totals.counts.sum(0)
    seen = (totals.counts[:, 1] + totals.counts[:, 2]) > 0
    return Metrics(
        num_rows=int(totals.num_rows),
        accuracy=totals.num_exact / rows,
        macro_f1=mean_of(by_label.f1[seen]),
        macro_recall=mean_of(by_label.recall[seen]),
        micro_f1=float(2 * hits / max(support + predicted, 1.0)),
        weighted_f1=float((by_label.f1 * by_label.support).sum() / max(support, 1.0)),
        mcc=_matthews(hits, support, predicted, totals.num_rows * len(totals.counts)),
        log_loss=totals.log_loss / rows,
        ece=calibration_error(totals.bins),
    )


def set_report_of(totals: SetTotals, labels: Sequence[str]) -> dict[str, Any]:
    """The content of `metrics.json`: metrics, then figures by label."""
    per_label = set_label_metrics(totals).by_name(labels)
    return {**vars(set_metrics_of(totals)), "labels": list(labels), "per_label": per_label}


def _matthews(hits: float, support: float, predicted: float, count: float) -> float:
    spread = support * (count - support) * predicted * (count - predicted)
    return float((hits * count - support * predicted) / np.sqrt(spread)) if spread > 0 else 0.0
