"""Combines the LSTM and the linear model into one classifier, fitted on the validation rows.

Fitted are, in this order: temperature and ensemble weight by log loss, offsets of the labels by
macro-F1 (if asked for), thresholds of label sets by F1, and the early exit (cascade) by the share
of labels that it changes.

Shape letters: B rows, C labels.
"""

from dataclasses import dataclass

import numpy as np

from distlstm.model.calibration import fit_weights, score_histogram
from distlstm.model.cascade import Cascade, fit_cascade
from distlstm.model.label_kind import LabelKind
from distlstm.model.metrics import AllReduce, Metrics, TrueLabels, one_worker
from distlstm.text.labels import one_hot

_SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, kw_only=True)
class ValidationLogits:
    """The logits of both models for a worker's validation rows, and the true labels."""

    recurrent: np.ndarray
    """Logits of the LSTM (float32 [B, C])."""
    linear: np.ndarray | None
    """Logits of the linear model (float32 [B, C]); None if it is not used."""
    label_ids: np.ndarray
    """int64 [B]."""
    targets: np.ndarray | None
    """Label probabilities (float32 [B, C]); None if each row has one certain label."""

    @property
    def true_labels(self) -> TrueLabels:
        """The label ids, with the targets as members."""
        return TrueLabels(self.label_ids, self.targets)

    @property
    def probabilities(self) -> np.ndarray:
        """The targets, or 1 for each row's label: [B, C]."""
        if self.targets is not None:
            return self.targets
        return one_hot(self.label_ids, self.recurrent.shape[1])


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """How the two models are combined, and the validation metrics of the result."""

    temperature: float
    """The logits of the LSTM are divided by it."""
    linear_weight: float
    """Ensemble weight: the factor of the linear model's logits; 0 without a linear model."""
    metrics: Metrics
    recurrent: Metrics
    """Metrics of the recurrent model alone, with its own temperature."""
    score_histogram: list[int]
    """Number of rows by score of the predicted label; see `score_histogram`."""
    thresholds: tuple[float, ...] = ()
    """By label id; empty unless the model gives label sets."""
    cascade: Cascade | None = None
    """When the linear model answers alone; None if it never does."""
    offsets: tuple[float, ...] = ()
    """By label id, what is added to the logits so that rare labels are predicted more often; empty
    if nothing is."""


def calibrate(
    rows: ValidationLogits,
    *,
    kind: LabelKind,
    cascade_tolerance: float = 0.0,
    label_counts: np.ndarray | None = None,
    all_reduce: AllReduce = one_worker,
) -> Calibration:
    """Fit temperature, ensemble weight, thresholds and cascade, and measure the result.

    Args:
        rows: the validation rows of this worker.
        kind: of the labels.
        cascade_tolerance: share of the rows whose label the cascade may change; 0: no cascade.
        label_counts: training rows of each label, to fit offsets for the highest macro-F1; None
            fits none.
        all_reduce: sums a vector over the workers, so that the rows of all workers count.
    """
    logits, targets = rows.recurrent[None], rows.probabilities
    if rows.linear is not None:
        logits = np.stack([rows.recurrent, rows.linear])
    weights, alone = (
        fit_weights(some, targets, loss_at=kind.loss_at, all_reduce=all_reduce)
        for some in (logits, logits[:1])
    )
    combined = np.tensordot(weights, logits, axes=1)
    offsets = np.zeros(combined.shape[1])
    if label_counts is not None and not kind.gives_sets:
        offsets = fit_offsets(combined, rows, kind, label_counts, all_reduce=all_reduce)
    probabilities = kind.probabilities(combined + offsets)
    fitted = kind.fitted(probabilities, rows.targets, all_reduce)
    linear = np.tensordot(weights[1:], logits[1:], axes=1) + offsets
    cascade = None
    if cascade_tolerance > 0 and weights[1:].any() and not kind.gives_sets:
        cascade = fit_cascade(
            linear, probabilities, targets, tolerance=cascade_tolerance, all_reduce=all_reduce
        )
    if cascade is not None:
        probabilities = cascade.applied(linear, probabilities)
    histogram = score_histogram(probabilities.max(1, initial=0.0)).astype(np.float64)
    return Calibration(
        temperature=float(1 / weights[0]),
        linear_weight=float(weights[1:].sum()),
        metrics=_measure(fitted, probabilities, rows.true_labels, all_reduce),
        recurrent=_measure(
            kind, fitted.probabilities(alone[0] * rows.recurrent), rows.true_labels, all_reduce
        ),
        score_histogram=all_reduce(histogram).astype(int).tolist(),
        thresholds=fitted.thresholds,
        cascade=cascade,
        offsets=tuple(offsets.tolist()) if offsets.any() else (),
    )


def fit_offsets(
    logits: np.ndarray,
    rows: ValidationLogits,
    kind: LabelKind,
    label_counts: np.ndarray,
    *,
    all_reduce: AllReduce = one_worker,
) -> np.ndarray:
    """Offsets of the logits (float64 [C]) with the highest macro-F1 on held-out rows.

    They are a share of the negative log frequency of each label: 0 trusts the frequencies of the
    training rows, 1 takes all labels as equally frequent (Menon et al. 2021, Long-tail Learning via
    Logit Adjustment). The share is the only number that is fitted, so few rows suffice.
    """
    frequency = (label_counts + 1) / (label_counts + 1).sum()
    best, found = -1.0, np.zeros(logits.shape[1])
    for share in _SHARES:
        offsets = -share * np.log(frequency)
        offsets -= offsets.mean()
        probabilities = kind.probabilities(logits + offsets)
        macro_f1 = _measure(kind, probabilities, rows.true_labels, all_reduce).macro_f1
        if macro_f1 > best:
            best, found = macro_f1, offsets
    return found


def _measure(
    kind: LabelKind, probabilities: np.ndarray, truth: TrueLabels, all_reduce: AllReduce
) -> Metrics:
    """The metrics over the rows of all workers."""
    totals = kind.zero(probabilities.shape[1])
    if len(truth.label_ids):
        totals += kind.totals(probabilities, truth.label_ids, truth.members)
    return kind.metrics(kind.from_vector(all_reduce(totals.to_vector())))
