"""The linear model: a support vector machine on n-grams of tokens, for what needs no word order.

It is the baseline of every training, and the wide partner of the recurrent model. Encoded rows ->
`fit_features` -> `NgramFeatures.transform` -> `SparseRows` -> `fit_linear` -> `LinearModel`. It
trains within seconds (Wang and Manning 2012, Baselines and Bigrams).

A row is S = `transform(row)`; learnt weights apply to S G, G being what each feature stands for:
- itself, times its inverse document frequency (idf);
- itself, times how much more often its rows have the label than not (the log-count ratio of Wang
  and Manning), so that a telling n-gram needs little weight: the more, the more rows there are to
  count (the share of its square is rows per label over 300, and 30 at the most);
- if it is a token, its subwords times theirs, so that rare words lean on their kin.
Only G G^T is ever needed, and G goes into the weights at the end: none of the three costs anything
when the model is applied.

Shape letters: N tokens, R rows, F features, U subwords, C labels.
"""

from collections.abc import Mapping
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
_TOLERANCE, _SMALLEST, _ROUNDING = 1e-4, 1e-30, 1e-12
_NEWTON_STEPS, _GRADIENT_STEPS, _HALVINGS, _LABELS_AT_ONCE = 30, 10, 10, 32


@dataclass(frozen=True)
class LinearModel:
    """One linear score per label: `weight` (float32 [F, C]) and `bias` (float32 [C])."""

    features: NgramFeatures
    weight: Tensor
    bias: Tensor

    def logits(self, token_ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Signed margins, float32 [R, C]; they are not calibrated."""
        parts = self.features.transform_in_parts(token_ids, offsets)
        scores = [part.times(self.weight) + self.bias for part in parts]
        return np.asarray(torch.cat([torch.zeros(0, len(self.bias)), *scores]).numpy())

    def scaled(self, factor: float) -> "LinearModel":
        """A model with `factor` times the logits."""
        return LinearModel(self.features, self.weight * factor, self.bias * factor)

    def to_tensors(self) -> dict[str, Tensor]:
        """All that `from_tensors` needs."""
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
        """A model from the tensors of another.

        Raises:
            ValueError: they do not fit one another, the vocabulary or the labels.
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
            raise ValueError("the linear model names buckets that there are not")
        norms = tensors["norms"].numpy()
        if not (norms > 0).all():
            raise ValueError("the linear model has features of no length")
        features = NgramFeatures(buckets, norms)
        return cls(features, tensors["weight"], tensors["bias"])


@dataclass(frozen=True)
class Prior:
    """What features stand for, before labels are looked at.

    `idf` (float32 [F]) is that of each feature; `subwords`, the subwords of the tokens [V, U],
    weighted by theirs.
    """

    idf: Tensor
    subwords: SparseRows
    tokens: SparseRows
    """`subwords`, transposed: [U, V]."""

    def times(self, weights: Tensor) -> Tensor:
        """G G^T times a matrix [F, C], the log-count ratios left out."""
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
    """Find the n-grams of training rows: all tokens, and what else `min_rows` rows use.

    idf is ln((1 + rows) / (1 + rows with the n-gram)) + 1, as scikit-learn's TfidfVectorizer has
    it; a subword counts as in as many rows as its tokens together. N-grams of a single row are up
    to two thirds of all, and no help to accuracy. Of more than `most` the most frequent are kept.
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
    """Those of tokens that occur, if two rows have them; weight 0 for all others."""
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
    """Train on rows with `label_ids` (int64 [R]), at least one; no randomness is involved.

    Each label against the rest: the least of |w|^2 / 2 + sum of max(0, 1 - y (w.x + b))^2, where
    y is 1 or -1 and b, as in LIBLINEAR (Fan et al. 2008), is the weight of a feature that is 1 in
    every row. Memory is a few times [R, 32] and [F, 32] float32, and the result [F, C].

    Args:
        token_ids: of all rows (int32 [N]).
        offsets: where each row starts (int64 [R + 1]).
        label_ids: of the rows; where they have sets of labels, float32 [R, C]: 1 for each it has.
        num_labels: C.
        subwords: of each token of the vocabulary.
        row_weights: how much each row's shortfall counts (float32 [R]); 1 if not given.
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
    """Squares of the log-count ratios [F, C]: how much more often rows of the label have it."""
    counts = replace(columns, values=torch.ones_like(columns.values))
    inside = 1 + counts.times(has_label.float())
    outside = 1 + counts.times((~has_label).float())
    return ((inside / inside.sum(0)) / (outside / outside.sum(0))).log().square()


@dataclass(frozen=True)
class _Vector:
    """A weight vector per label, as a sum of training rows: w = sum_r alpha_r x_r.

    `alpha` [R, C], and `scores` [R, C]: w.x_r. Conjugate gradients reach only such sums (Chapelle
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
    """Training rows S [R, F], the same [F, R], what the features stand for, and the labels.

    `ratios` [F, C] are the shares of squared log-count ratios; `signs` [R, C]: 1 where a row has
    the label; `costs` [R, 1]: what a row's shortfall counts.
    """

    rows: SparseRows
    columns: SparseRows
    prior: Prior
    ratios: Tensor
    signs: Tensor
    costs: Tensor

    def weights(self, alpha: Tensor) -> Tensor:
        """Of the features, [F, C]: G G^T S^T alpha."""
        sums = self.columns.times(alpha)
        return self.prior.times(sums) + self.ratios * sums

    def vector(self, alpha: Tensor) -> _Vector:
        return _Vector(alpha, self.rows.times(self.weights(alpha)) + alpha.sum(0))

    def shortfall(self, scores: Tensor) -> Tensor:
        return (1 - self.signs * scores).clamp(min=0)

    def objective(self, weights: _Vector) -> Tensor:
        lost = self.costs * self.shortfall(weights.scores).square()
        return weights.dot(weights) / 2 + lost.sum(0)


def _minimise(problem: _Problem) -> Tensor:
    """The `alpha` [R, C] of the best weights, by truncated Newton steps on all labels at once."""
    nothing = torch.zeros_like(problem.signs)
    weights = _Vector(nothing, nothing)
    noise: Tensor | None = None
    for _ in range(_NEWTON_STEPS):
        shortfall = problem.shortfall(weights.scores)
        descent = problem.vector(2 * problem.costs * problem.signs * shortfall - weights.alpha)
        noise = descent.dot(descent) * _ROUNDING if noise is None else noise
        curvature = 2 * problem.costs * (shortfall > 0)
        direction = _newton_direction(problem, descent, curvature, noise=noise)
        promised = descent.dot(direction) / problem.objective(weights)
        weights = weights.plus(_step_length(problem, weights, direction), direction)
        if bool((promised <= _TOLERANCE).all()):
            break
    return weights.alpha


def _newton_direction(
    problem: _Problem, descent: _Vector, curvature: Tensor, *, noise: Tensor
) -> _Vector:
    """Solve (I + X^T curvature X) d = descent roughly, by conjugate gradients from 0.

    A label whose residual is no larger than rounding makes it, squared `noise` [C], is solved.
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
    """How far to go, [C], in [0, 2): the objective's slope along a line only grows, so bisect."""
    at_start, growth = start.dot(direction), direction.dot(direction)
    pull, step = 2 * problem.costs * problem.signs * direction.scores, torch.zeros_like(growth)
    for halving in range(_HALVINGS):
        further = step + 0.5**halving
        shortfall = problem.shortfall(start.scores + further * direction.scores)
        slope = at_start + further * growth - (pull * shortfall).sum(0)
        step = torch.where(slope < 0, further, step)
    return step
