"""The n-grams of rows of token ids, as the cells of a sparse matrix.

Rows are given as `token_ids` (int32 [N]), the concatenated rows, and `offsets` (int64 [R + 1], from
0), the start of each row and the end of the last.

Shape letters: N tokens, R rows, V vocabulary, F features, Z non-zero cells.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from distlstm.model.sparse import SparseRows, starts_of

LAST_SPECIAL_ID = 1
"""Ids up to this one (padding, unknown) are not words: no n-gram contains them."""
LONGEST = 3
_BUCKET_BITS = 22
_ROWS_AT_ONCE, _LARGEST_CELL = 2048, 2**32 - 1
NUM_BUCKETS = 2**_BUCKET_BITS
"""Number of buckets into which n-grams longer than a token are hashed."""
_FACTOR = np.uint64(0x100000001B3)  # the FNV prime
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / phi


@dataclass(frozen=True)
class NgramFeatures:
    """The n-grams that are features, and their norms.

    Features 0 to V - 1 are the tokens, by id. The others are longer n-grams, hashed into 2^22
    buckets, of which `buckets` (int32 [F - V], ascending) are kept. `norms` (float32 [F]) are the
    squared lengths of the features under the prior.
    """

    buckets: np.ndarray
    norms: np.ndarray

    @property
    def count(self) -> int:
        """Number of features, F."""
        return len(self.norms)

    @cached_property
    def _feature_of_bucket(self) -> np.ndarray:
        slots = np.full(NUM_BUCKETS, -1, np.int32)
        slots[self.buckets] = np.arange(self.count - len(self.buckets), self.count)
        return slots

    def transform(self, token_ids: np.ndarray, offsets: np.ndarray) -> SparseRows:
        """Rows [R, F]: 1 + ln count of each feature, divided by the length of the whole row.

        The logarithm is used because the tenth occurrence of a word in a row matters less than the
        first.
        """
        return SparseRows.concatenate(list(self.transform_in_parts(token_ids, offsets)), self.count)

    def transform_in_parts(
        self, token_ids: np.ndarray, offsets: np.ndarray
    ) -> Iterator[SparseRows]:
        """`transform`, some rows at a time."""
        some = min(_ROWS_AT_ONCE, _LARGEST_CELL // self.count)
        for start in range(0, len(offsets) - 1, some):
            yield self._transform(token_ids, offsets[start : start + some + 1])

    def _transform(self, token_ids: np.ndarray, offsets: np.ndarray) -> SparseRows:
        num_rows = len(offsets) - 1
        cells = self._cells(token_ids[offsets[0] : offsets[-1]], offsets - offsets[0])
        rows, features, counts = count_cells(cells, self.count)
        values = 1 + np.log(counts)
        squares = np.bincount(rows, values**2 * self.norms[features], minlength=num_rows)
        values /= np.sqrt(squares)[rows]
        return SparseRows(
            torch.from_numpy(features.astype(np.int32)),
            torch.from_numpy(values.astype(np.float32)),
            starts_of(torch.from_numpy(rows), num_rows),
            self.count,
        )

    def _cells(self, token_ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Every occurrence of a feature, as row * F + feature (uint32, which sorts faster)."""
        is_word = token_ids > LAST_SPECIAL_ID
        cells = [rows_of_tokens(offsets)[is_word] * self.count + token_ids[is_word]]
        for rows, buckets in longer_ngrams(token_ids, offsets):
            features = self._feature_of_bucket[buckets]
            known = features >= 0
            cells.append(rows[known] * self.count + features[known])
        return np.concatenate(cells).astype(np.uint32)


def rows_of_tokens(offsets: np.ndarray) -> np.ndarray:
    """The row of every token (int64 [N])."""
    return np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))


def longer_ngrams(
    token_ids: np.ndarray, offsets: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """For bigrams, then for trigrams: row and bucket of each occurrence (int64)."""
    rows = rows_of_tokens(offsets)
    ids = token_ids.astype(np.uint64)
    hashes, whole = ids, token_ids > LAST_SPECIAL_ID
    is_word = whole
    for length in range(2, LONGEST + 1):
        last = slice(length - 1, None)
        hashes = (hashes[:-1] * _FACTOR) ^ ids[last]
        whole = whole[:-1] & is_word[last] & (rows[: len(hashes)] == rows[last])
        buckets = (hashes[whole] * _SPREAD) >> np.uint64(64 - _BUCKET_BITS)
        yield rows[: len(hashes)][whole], buckets.astype(np.int64)


def count_cells(cells: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and count (int64 [Z] each) of the distinct numbers row * width + column."""
    cells = np.sort(cells)
    starts = np.flatnonzero(np.concatenate([[True], cells[1:] != cells[:-1]])[: len(cells)])
    distinct, counts = cells[starts].astype(np.int64), np.diff(starts, append=len(cells))
    return distinct // width, distinct % width, counts
