"""What a part adds to its input: the prediction columns, and sums over its rows."""

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from distlstm.model.calibration import SCORE_BINS, score_histogram
from distlstm.model.label_kind import ONE_LABEL, LabelKind
from distlstm.stages.prediction.parts import PREDICTED, TOP_K
from distlstm.stages.prediction.predictor import Predictions
from distlstm.text.columns import TextColumn


def answer_field(kind: LabelKind) -> pa.Field:
    """Name and type of the column with the answers: a label per row, or a list of labels."""
    if kind.gives_sets:
        return pa.field(TOP_K[0], pa.list_(pa.string()))
    return pa.field(PREDICTED[0], pa.string())


def prediction_columns(
    predictions: Predictions,
    label_names: pa.Array,
    kind: LabelKind,
    *,
    top_k: int | None = None,
    min_score: float | None = None,
) -> dict[str, pa.Array]:
    """The prediction columns, the answer first; null for rows without text.

    Args:
        predictions: of the rows.
        label_names: by label id (string, [C]).
        kind: of the labels; `top_k` and `min_score` have no effect on label sets.
        top_k: also list the k most probable labels, best first.
        min_score: make the label null if its score is lower.
    """
    if kind.gives_sets:
        return _label_set_columns(predictions, label_names, kind)
    known = predictions.has_text
    scores = predictions.scores
    confident = known if min_score is None else known & (np.nan_to_num(scores) >= min_score)
    labels = label_names.take(pa.array(predictions.label_ids, mask=~confident))
    columns = dict(zip(PREDICTED, (labels, pa.array(scores, mask=~known)), strict=True))
    return columns if top_k is None else columns | _top_k(predictions, label_names, top_k)


def _label_set_columns(
    predictions: Predictions, label_names: pa.Array, kind: LabelKind
) -> dict[str, pa.Array]:
    """The prediction columns of a model of label sets; null for rows without text.

    A row lists its labels that reach their threshold, the most probable first; the list can be
    empty.
    """
    known = predictions.has_text
    probabilities = predictions.probabilities[known]
    decided = kind.decided(probabilities)
    order = np.argsort(-np.where(decided, probabilities, -1), axis=1, kind="stable")
    counts = np.zeros(len(known), np.int64)
    counts[known] = decided.sum(1)
    chosen = np.arange(order.shape[1]) < counts[known][:, None]
    offsets = pa.array(np.concatenate([[0], np.cumsum(counts)]).astype(np.int32))
    scores = np.take_along_axis(probabilities, order, axis=1)[chosen]
    values = (label_names.take(pa.array(order[chosen])), pa.array(scores))
    return {
        name: pa.ListArray.from_arrays(offsets, value, mask=pa.array(~known))
        for name, value in zip(TOP_K, values, strict=True)
    }


def _top_k(predictions: Predictions, label_names: pa.Array, top_k: int) -> dict[str, pa.Array]:
    known = predictions.has_text
    k = min(top_k, len(label_names))
    order = np.argsort(-predictions.probabilities[known], axis=1, kind="stable")[:, :k]
    scores = np.take_along_axis(predictions.probabilities[known], order, axis=1)
    offsets = pa.array(np.concatenate([[0], np.cumsum(known * k)]).astype(np.int32))
    values = (label_names.take(pa.array(order.ravel())), pa.array(scores.ravel()))
    return {
        name: pa.ListArray.from_arrays(offsets, value, mask=pa.array(~known))
        for name, value in zip(TOP_K, values, strict=True)
    }


@dataclass
class Tally:
    """Running sums over the rows of a unit; `label_counts` is float64 [C]."""

    label_counts: np.ndarray
    kind: LabelKind = ONE_LABEL
    histogram: np.ndarray = field(default_factory=lambda: np.zeros(SCORE_BINS, np.int64))
    missing: Counter[str] = field(default_factory=Counter)
    num_rows: int = 0
    num_tokens: int = 0
    num_unknown: int = 0
    num_truncated: int = 0
    num_by_partner: int = 0

    def add(self, predictions: Predictions, texts: TextColumn) -> None:
        """Add some rows to the sums."""
        known = predictions.has_text
        self.label_counts += self.kind.decided(predictions.probabilities[known]).sum(0)
        self.histogram += score_histogram(predictions.scores[known])
        self.missing.update(texts.missing)
        self.num_rows += len(known)
        self.num_tokens += int(predictions.num_tokens.sum())
        self.num_unknown += int(predictions.num_unknown.sum())
        self.num_truncated += int(predictions.is_truncated.sum())
        self.num_by_partner += int(predictions.by_linear.sum())
