"""The linear model: a support vector machine on n-grams of tokens.

It trains within seconds (Wang and Manning 2012, Baselines and Bigrams). It is the baseline of every
training, and with `model.wide` a member of the ensemble. Encoded rows -> `fit_features` ->
`NgramFeatures.transform` -> `SparseRows` -> `fit_linear` -> `LinearModel`.

A row is S = `transform(row)`, and the learnt weights apply to S G. G is a prior: it expands each
feature into
- the feature, times its inverse document frequency (idf);
- the feature, times its log-count ratio (Wang and Manning): how much more often it is in rows of
  the label than in others. So an indicative n-gram needs little weight. The squared ratio is scaled
  by rows per label / 300, at most 30, since counts of few rows are unreliable;
- for a token, its subwords, times their idf, so that rare words learn from similar words.
Training needs only G G^T, and G is multiplied into the final weights, so G costs nothing when the
model is applied.

Shape letters: N tokens, R rows, F features, U subwords, C labels.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from distlstm.model.ngrams import (
    LAST_SPECIAL_ID,
    NUM_BUCKETS,
    NgramFeatures,
    count_cells,
    longer_ngrams,
    rows_of_tokens,
)
from distlstm.model.sparse import SparseRows
from distlstm.text.subwords import Subwords

_SUBWORD_SHARE = 0.3
_ROWS_PER_RATIO_SHARE, _MOST_RATIO_SHARE = 300, 30.0
_MOST_WEIGHTS = 2**25
_SMALLEST_NORM = 1e-6  # `fit_features` finds 1 or more
_TOLERANCE, _SMALLEST, _ROUNDING = 1e-4, 1e-30, 1e-12
_NEWTON_STEPS, _GRADIENT_STEPS, _HALVINGS, _LABELS_AT_ONCE = 30, 10, 10, 32


@dataclass(frozen=True)
class LinearModel:
    """One linear score per label: `weight` (float32 [F, C]) and `bias` (float32 [C])."""

    features: NgramFeatures
    weight: Tensor
    bias: Tensor

    def logits(self, token_ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Signed margins, float32 [R, C], not calibrated."""
        parts = self.features.transform_in_parts(token_ids, offsets)
        scores = [part.times(self.weight) + self.bias for part in parts]
        return np.asarray(torch.cat([torch.zeros(0, len(self.bias)), *scores]).numpy())

    def scaled(self, factor: float) -> "LinearModel":
        """The same model with all logits multiplied by `factor`."""
        return LinearModel(self.features, self.weight * factor, self.bias * factor)

    def shifted(self, offsets: Sequence[float]) -> "LinearModel":
        """The same model with an offset added to the logits of each label."""
        return replace(self, bias=self.bias + torch.tensor(offsets, dtype=torch.float32))

    def to_tensors(self) -> dict[str, Tensor]:
        """The tensors that `from_tensors` reads."""
        return {
            "buckets": torch.from_numpy(self.features.buckets),
            "norms": torch.from_numpy(self.features.norms),
            "weight": self.weight,
            "bias": self.bias,
        }

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, Tensor], *, vocab_size: int, num_labels: int
    ) -> Self:
        """A model from the tensors of `to_tensors`.

        Raises:
            ValueError: they do not fit each other, the vocabulary or the labels.
        """
        found = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}
        longer = len(tensors["buckets"]) if "buckets" in tensors else 0
        count = vocab_size + longer
        wanted = {
            "buckets": ((longer,), torch.int32),
            "norms": ((count,), torch.float32),
            "weight": ((count, num_labels), torch.float32),
            "bias": ((num_labels,), torch.float32),
        }
        if found != wanted:
            raise ValueError("the tensors of the linear model do not fit together")
        buckets = tensors["buckets"].numpy()
        if longer and not (buckets.min() >= 0 and buckets.max() < NUM_BUCKETS):
            raise ValueError("the linear model has n-gram buckets out of range")
        norms = tensors["norms"].numpy()
        if not (norms >= _SMALLEST_NORM).all():
            raise ValueError(f"the linear model has feature norms below {_SMALLEST_NORM:g}")
        features = NgramFeatures(buckets, norms)
        return cls(features, tensors["weight"], tensors["bias"])


@dataclass(frozen=True)
class Prior:
    """The part of G that does not depend on labels: all but the log-count ratios.

    `idf` (float32 [F]) is that of the features; `subwords` [V, U] are the subwords of the tokens,
    weighted by their idf.
    """

    idf: Tensor
    subwords: SparseRows
    tokens: SparseRows
    """`subwords`, transposed: [U, V]."""

    def times(self, weights: Tensor) -> Tensor:
        """G G^T times a matrix [F, C], without the log-count ratios."""
        by_token = self.subwords.times(self.tokens.times(weights[: len(self.subwords.offsets) - 1]))
        own = self.idf.square()[:, None] * weights
        return own + F.pad(by_token, (0, 0, 0, len(own) - len(by_token)))


def fit_features(
    token_ids: np.ndarray,
    offsets: np.ndarray,
    subwords: Subwords,
    *,
    most: int,
    min_rows: int = 2,
) -> tuple[NgramFeatures, Prior]:
    """Find the n-gram features of training rows: all tokens, and n-grams in `min_rows` or more.

    At most `most` features are kept, those of the most frequent n-grams. N-grams of a single row
    are up to two thirds of all, and do not improve accuracy. idf is ln((1 + rows) / (1 + rows with
    the n-gram)) + 1, as in scikit-learn's TfidfVectorizer; the rows with a subword are the sum over
    its tokens.
    """
    num_rows, vocab_size = len(offsets) - 1, len(subwords.offsets) - 1
    of_tokens = _num_rows_of(rows_of_tokens(offsets), token_ids, vocab_size)
    of_tokens[: LAST_SPECIAL_ID + 1] = 0
    of_buckets = np.zeros(NUM_BUCKETS, np.int64)
    for rows, buckets in longer_ngrams(token_ids, offsets):
        of_buckets += _num_rows_of(rows, buckets, NUM_BUCKETS)
    kept = np.flatnonzero(of_buckets >= min_rows)
    surplus = len(kept) - max(0, most - vocab_size)
    if surplus > 0:
        kept = np.sort(kept[np.argsort(of_buckets[kept], kind="stable")[surplus:]])
    idf = _idf(np.concatenate([of_tokens, of_buckets[kept]]), num_rows)
    weighted = _weighted_subwords(subwords, of_tokens, num_rows)
    prior = Prior(torch.from_numpy(idf), weighted, weighted.transposed())
    norms = idf**2
    norms[:vocab_size] += _row_sums(weighted.values.numpy() ** 2, subwords.offsets)
    return NgramFeatures(kept.astype(np.int32), norms), prior


def _num_rows_of(rows: np.ndarray, columns: np.ndarray, width: int) -> np.ndarray:
    _, distinct, _ = count_cells(rows * width + columns, width)
    return np.asarray(np.bincount(distinct, minlength=width))


def _idf(num_rows_with: np.ndarray, num_rows: int) -> np.ndarray:
    return np.asarray(np.log((1 + num_rows) / (1 + num_rows_with)) + 1, np.float32)


def _weighted_subwords(subwords: Subwords, of_tokens: np.ndarray, num_rows: int) -> SparseRows:
    """The subwords of tokens, weighted by idf; weight 0 for those in fewer than two rows."""
    num_tokens = np.diff(subwords.offsets)
    frequency = np.bincount(
        subwords.values, np.repeat(of_tokens, num_tokens), minlength=subwords.count
    )
    weights = _SUBWORD_SHARE * _idf(np.minimum(frequency, num_rows), num_rows) * (frequency > 1)
    return SparseRows(
        torch.from_numpy(subwords.values),
        torch.from_numpy(weights[subwords.values].astype(np.float32)),
        torch.from_numpy(subwords.offsets).int(),
        max(1, subwords.count),
    )


def _row_sums(values: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    sums = np.concatenate([np.zeros(1), np.cumsum(values, dtype=np.float64)])
    return np.asarray(np.diff(sums[offsets]), np.float32)


def fit_linear(
    token_ids: np.ndarray,
    offsets: np.ndarray,
    label_ids: np.ndarray,
    *,
    num_labels: int,
    subwords: Subwords,
    row_weights: np.ndarray | None = None,
) -> LinearModel:
    """Train on at least one row; the result is deterministic.

    Each label is trained against the rest, to minimise |w|^2 / 2 + sum of max(0, 1 - y (w.x + b))^2
    with y = 1 or -1. As in LIBLINEAR (Fan et al. 2008), b is the weight of a feature that is 1 in
    every row. This takes a few times [R, 32] and [F, 32] float32 of memory, and [F, C] for the
    result.

    Args:
        token_ids: of all rows (int32 [N]).
        offsets: where each row starts (int64 [R + 1]).
        label_ids: of the rows (int64 [R]); for label sets, float32 [R, C]: 1 for each label.
        num_labels: C.
        subwords: of each token of the vocabulary.
        row_weights: the weight of each row in the sum (float32 [R]); 1 if not given.
    """
    features, prior = fit_features(token_ids, offsets, subwords, most=_MOST_WEIGHTS // num_labels)
    rows = features.transform(token_ids, offsets)
    columns = rows.transposed()
    share = min(_MOST_RATIO_SHARE, len(label_ids) / num_labels / _ROWS_PER_RATIO_SHARE)
    costs = torch.ones(len(label_ids), 1)
    if row_weights is not None:
        costs = torch.from_numpy(row_weights)[:, None]
    of_row, labels = torch.from_numpy(label_ids.astype(np.int64)), torch.arange(num_labels)
    weights, biases = [], []
    for block in torch.split(labels, _LABELS_AT_ONCE):
        has_label = of_row[:, None] == block if of_row.ndim == 1 else of_row[:, block] == 1
        signs, ratios = 2.0 * has_label - 1, share * _squared_ratios(columns, has_label)
        problem = _Problem(rows, columns, prior, ratios, signs, costs)
        alpha = _minimise(problem)
        weights.append(problem.weights(alpha))
        biases.append(alpha.sum(0))
    return LinearModel(features, torch.cat(weights, dim=1), torch.cat(biases))


def _squared_ratios(columns: SparseRows, has_label: Tensor) -> Tensor:
    """The squared log-count ratios [F, C] of the features, for each label against the rest."""
    counts = replace(columns, values=torch.ones_like(columns.values))
    inside = 1 + counts.times(has_label.float())
    outside = 1 + counts.times((~has_label).float())
    return ((inside / inside.sum(0)) / (outside / outside.sum(0))).log().square()


@dataclass(frozen=True)
class _Vector:
    """A weight vector per label, as a sum of training rows: w = sum_r alpha_r x_r.

    `alpha` and `scores` (w.x_r) are [R, C]. Conjugate gradients reach only such sums (Chapelle
    2007, Training a Support Vector Machine in the Primal), so none is ever stored as [F, C].
    """

    alpha: Tensor
    scores: Tensor

    def dot(self, other: "_Vector") -> Tensor:
        return (self.alpha * other.scores).sum(0)

    def plus(self, step: Tensor, other: "_Vector") -> "_Vector":
        return _Vector(self.alpha + step * other.alpha, self.scores + step * other.scores)


@dataclass(frozen=True)
class _Problem:
    """A block of labels to train: rows S [R, F], `columns` (S transposed), the prior, the labels.

    `ratios` [F, C] are the scaled squared log-count ratios. `signs` [R, C] are 1 where a row has
    the label, else -1. `costs` [R, 1] are the weights of the rows.
    """

    rows: SparseRows
    columns: SparseRows
    prior: Prior
    ratios: Tensor
    signs: Tensor
    costs: Tensor

    def weights(self, alpha: Tensor) -> Tensor:
        """The weights of the features, [F, C]: G G^T S^T alpha."""
        sums = self.columns.times(alpha)
        return self.prior.times(sums) + self.ratios * sums

    def vector(self, alpha: Tensor) -> _Vector:
        return _Vector(alpha, self.rows.times(self.weights(alpha)) + alpha.sum(0))

    def slack(self, scores: Tensor) -> Tensor:
        return (1 - self.signs * scores).clamp(min=0)

    def objective(self, weights: _Vector) -> Tensor:
        lost = self.costs * self.slack(weights.scores).square()
        return weights.dot(weights) / 2 + lost.sum(0)


def _minimise(problem: _Problem) -> Tensor:
    """The `alpha` [R, C] of the minimum, by truncated Newton steps on all labels at once."""
    nothing = torch.zeros_like(problem.signs)
    weights = _Vector(nothing, nothing)
    noise: Tensor | None = None
    for _ in range(_NEWTON_STEPS):
        slack = problem.slack(weights.scores)
        descent = problem.vector(2 * problem.costs * problem.signs * slack - weights.alpha)
        noise = descent.dot(descent) * _ROUNDING if noise is None else noise
        curvature = 2 * problem.costs * (slack > 0)
        direction = _newton_direction(problem, descent, curvature, noise=noise)
        promised = descent.dot(direction) / problem.objective(weights)
        weights = weights.plus(_step_length(problem, weights, direction), direction)
        if bool((promised <= _TOLERANCE).all()):
            break
    return weights.alpha


def _newton_direction(
    problem: _Problem, descent: _Vector, curvature: Tensor, *, noise: Tensor
) -> _Vector:
    """Solve (I + X^T curvature X) d = descent approximately, by conjugate gradients from 0.

    A label is solved once its squared residual is at most `noise` [C], that of rounding errors.
    """
    nothing = torch.zeros_like(descent.alpha)
    solution, residual, search = _Vector(nothing, nothing), descent, descent
    size = residual.dot(residual)
    for _ in range(_GRADIENT_STEPS):
        image = search.alpha + curvature * search.scores
        curved = (image * search.scores).sum(0)
        step = torch.where((size > noise) & (curved > 0), size / curved, 0.0)
        solution = solution.plus(step, search)
        residual = problem.vector(residual.alpha - step * image)
        size, before = residual.dot(residual), size
        search = residual.plus(size / before.clamp(min=_SMALLEST), search)
    return solution


def _step_length(problem: _Problem, start: _Vector, direction: _Vector) -> Tensor:
    """The step length [C], in [0, 2), by bisection: along a line, the slope only increases."""
    at_start, growth = start.dot(direction), direction.dot(direction)
    pull, step = 2 * problem.costs * problem.signs * direction.scores, torch.zeros_like(growth)
    for halving in range(_HALVINGS):
        further = step + 0.5**halving
        slack = problem.slack(start.scores + further * direction.scores)
        slope = at_start + further * growth - (pull * slack).sum(0)
        step = torch.where(slope < 0, further, step)
    return step
