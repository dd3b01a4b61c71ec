"""The linear baseline: a support vector machine on TF-IDF weighted uni- and bigrams of tokens.

Encoded rows -> `fit_features` -> `NgramFeatures.transform` -> `SparseRows` -> `fit_linear` ->
`LinearModel`. It answers within seconds whether a recurrent model is worth its training (Wang and
Manning 2012, Baselines and Bigrams). Rows come as everywhere: `token_ids` (int32 [N]) of all rows
end to end and `offsets` (int64 [R + 1]), 0 first, where each row starts and the last one ends.

Shape letters: N tokens, R rows, F features, Z cells that are not zero, C labels.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

LAST_SPECIAL_ID = 1
"""Ids up to here (padding, unknown) are no words: no n-gram contains them."""
_BIGRAM = 2**31
"""A unigram's key is its id; that of the bigram (a, b) is (a + 1) * 2^31 + b, which is greater."""
_COST, _TOLERANCE, _SMALLEST = 1.0, 1e-4, 1e-30
_NEWTON_STEPS, _GRADIENT_STEPS, _HALVINGS, _LABELS_AT_ONCE = 30, 10, 10, 32


@dataclass(frozen=True)
class SparseRows:
    """A sparse matrix [R, width], row after row, as `torch.nn.EmbeddingBag` takes its bags.

    `columns` (int32 [Z]) and `values` (float32 [Z]) hold row r from `offsets[r]` up to
    `offsets[r + 1]` (int32 [R + 1]). A torch CSR tensor would warn that it is beta, and its
    product takes two to four times as long for twenty labels.
    """

    columns: Tensor
    values: Tensor
    offsets: Tensor
    width: int

    def times(self, dense: Tensor) -> Tensor:
        """The product with a dense matrix: [R, width] x [width, C] -> [R, C]."""
        return F.embedding_bag(
            self.columns,
            dense,
            self.offsets,
            mode="sum",
            per_sample_weights=self.values,
            include_last_offset=True,
        )

    def transposed(self) -> "SparseRows":
        """The same cells column after column: [width, R]."""
        order = self.columns.argsort(stable=True)
        rows = torch.repeat_interleave(self.offsets.diff()).int()
        starts = _starts(self.columns, self.width)
        return SparseRows(rows[order], self.values[order], starts, len(self.offsets) - 1)


@dataclass(frozen=True)
class NgramFeatures:
    """The n-grams that count, `keys` (int64 [F], ascending), and how much, `idf` (float32 [F])."""

    keys: Tensor
    idf: Tensor

    def transform(self, token_ids: np.ndarray, offsets: np.ndarray) -> SparseRows:
        """Rows [R, F] of length 1 (0 where nothing is known); n-grams not fitted are ignored.

        A cell is (1 + ln count) * idf: one row's tenth use of a word says less than its first.
        """
        ngrams, width = _ngrams_of(token_ids, offsets), len(self.keys)
        column = torch.searchsorted(self.keys, ngrams.keys)
        known = F.pad(self.keys, (0, 1), value=-1)[column] == ngrams.keys
        cells, counts = torch.unique((ngrams.rows * width + column)[known], return_counts=True)
        rows, columns = cells // width, cells % width
        values = (1 + counts.log()) * self.idf[columns]
        lengths = torch.zeros(ngrams.num_rows).index_add(0, rows, values.square()).sqrt()
        starts = _starts(rows, ngrams.num_rows)
        return SparseRows(columns.int(), values / lengths[rows], starts, width)


@dataclass(frozen=True)
class LinearModel:
    """One linear score per label: `weight` (float32 [F, C]) and `bias` (float32 [C])."""

    features: NgramFeatures
    weight: Tensor
    bias: Tensor

    def logits(self, token_ids: np.ndarray, offsets: np.ndarray) -> Tensor:
        """Signed margins, float32 [R, C]; they are not calibrated."""
        return self.features.transform(token_ids, offsets).times(self.weight) + self.bias

    def predict(self, token_ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Label ids, int64 [R]: the highest score, the lower id on ties."""
        return self.logits(token_ids, offsets).argmax(1).numpy()


def fit_features(
    token_ids: np.ndarray, offsets: np.ndarray, *, min_bigram_rows: int = 2
) -> NgramFeatures:
    """Find the n-grams of training rows: all unigrams, and bigrams that `min_bigram_rows` rows use.

    idf is ln((1 + rows) / (1 + rows with the n-gram)) + 1, as scikit-learn's TfidfVectorizer has
    it. Bigrams of a single row are up to two thirds of all n-grams and no help to accuracy.
    """
    ngrams = _ngrams_of(token_ids, offsets)
    keys, column = torch.unique(ngrams.keys, return_inverse=True)
    cells = torch.unique(column * ngrams.num_rows + ngrams.rows)
    frequency = torch.bincount(cells // ngrams.num_rows, minlength=len(keys))
    kept = (keys < _BIGRAM) | (frequency >= min_bigram_rows)
    idf = torch.log((1 + ngrams.num_rows) / (1 + frequency[kept])) + 1
    return NgramFeatures(keys[kept], idf)


def fit_linear(
    token_ids: np.ndarray, offsets: np.ndarray, label_ids: np.ndarray, *, num_labels: int
) -> LinearModel:
    """Train on rows with `label_ids` (int64 [R]), at least one; no randomness is involved.

    Where rows have sets of labels, `label_ids` is float32 [R, C] instead: 1 where a row has one.

    Each label against the rest: the least of |w|^2 / 2 + sum of max(0, 1 - y (w.x + b))^2, where
    y is 1 or -1 and b, as in LIBLINEAR (Fan et al. 2008), is the weight of a feature that is 1 in
    every row. Memory is a few times [R, 32] and [F, 32] float32, and the result [F, C].
    """
    features = fit_features(token_ids, offsets)
    rows = features.transform(token_ids, offsets)
    columns = rows.transposed()
    of_row, labels = torch.from_numpy(label_ids.astype(np.int64)), torch.arange(num_labels)
    alphas = []
    for block in torch.split(labels, _LABELS_AT_ONCE):
        has_label = of_row[:, None] == block if of_row.ndim == 1 else of_row[:, block] == 1
        signs = torch.where(has_label, 1.0, -1.0)
        alphas.append(_minimise(_Problem(rows, columns, signs)))
    alpha = torch.cat(alphas, dim=1)
    return LinearModel(features, columns.times(alpha), alpha.sum(0))


@dataclass(frozen=True)
class _Ngrams:
    """Every occurrence of a uni- or bigram: its key and its row, both int64."""

    keys: Tensor
    rows: Tensor
    num_rows: int


def _ngrams_of(token_ids: np.ndarray, offsets: np.ndarray) -> _Ngrams:
    ids = torch.from_numpy(token_ids.astype(np.int64))  # copied: what comes from Arrow is read-only
    rows = torch.repeat_interleave(torch.from_numpy(np.diff(offsets)).long())
    word = ids > LAST_SPECIAL_ID
    pair = word[:-1] & word[1:] & (rows[:-1] == rows[1:])
    bigrams = (ids[:-1][pair] + 1) * _BIGRAM + ids[1:][pair]
    keys, of_row = torch.cat([ids[word], bigrams]), torch.cat([rows[word], rows[:-1][pair]])
    return _Ngrams(keys, of_row, len(offsets) - 1)


def _starts(groups: Tensor, count: int) -> Tensor:
    """Where each of `count` groups starts, once sorted by group, and where the last one ends."""
    return F.pad(torch.bincount(groups, minlength=count).cumsum(0), (1, 0)).int()


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
    """Training rows [R, F], the same [F, R], and `signs` [R, C]: 1 where a row has the label."""

    rows: SparseRows
    columns: SparseRows
    signs: Tensor

    def vector(self, alpha: Tensor) -> _Vector:
        return _Vector(alpha, self.rows.times(self.columns.times(alpha)) + alpha.sum(0))

    def shortfall(self, scores: Tensor) -> Tensor:
        return (1 - self.signs * scores).clamp(min=0)

    def objective(self, weights: _Vector) -> Tensor:
        return weights.dot(weights) / 2 + _COST * self.shortfall(weights.scores).square().sum(0)


def _minimise(problem: _Problem) -> Tensor:
    """The `alpha` [R, C] of the best weights, by truncated Newton steps on all labels at once."""
    nothing = torch.zeros_like(problem.signs)
    weights = _Vector(nothing, nothing)
    for _ in range(_NEWTON_STEPS):
        shortfall = problem.shortfall(weights.scores)
        descent = problem.vector(2 * _COST * problem.signs * shortfall - weights.alpha)
        direction = _newton_direction(problem, descent, 2 * _COST * (shortfall > 0))
        promised = descent.dot(direction) / problem.objective(weights)
        weights = weights.plus(_step_length(problem, weights, direction), direction)
        if bool((promised <= _TOLERANCE).all()):
            break
    return weights.alpha


def _newton_direction(problem: _Problem, descent: _Vector, curvature: Tensor) -> _Vector:
    """Solve (I + X^T curvature X) d = descent roughly, by conjugate gradients from 0."""
    nothing = torch.zeros_like(descent.alpha)
    solution, residual, search = _Vector(nothing, nothing), descent, descent
    size = residual.dot(residual)
    for _ in range(_GRADIENT_STEPS):
        image = search.alpha + curvature * search.scores
        step = size / (image * search.scores).sum(0).clamp(min=_SMALLEST)
        solution = solution.plus(step, search)
        residual = problem.vector(residual.alpha - step * image)
        size, before = residual.dot(residual), size
        search = residual.plus(size / before.clamp(min=_SMALLEST), search)
    return solution


def _step_length(problem: _Problem, start: _Vector, direction: _Vector) -> Tensor:
    """How far to go, [C], in [0, 2): the objective's slope along a line only grows, so bisect."""
    at_start, growth = start.dot(direction), direction.dot(direction)
    pull, step = 2 * _COST * problem.signs * direction.scores, torch.zeros_like(growth)
    for halving in range(_HALVINGS):
        further = step + 0.5**halving
        shortfall = problem.shortfall(start.scores + further * direction.scores)
        slope = at_start + further * growth - (pull * shortfall).sum(0)
        step = torch.where(slope < 0, further, step)
    return step
