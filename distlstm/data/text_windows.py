"""Texts cut into windows of a limited length, which a language model reads one by one."""

import numpy as np

from distlstm.data.shards import Shards

_AT_ONCE = 2**20


class TextWindows:
    """Random access to the windows of all rows of shards.

    The windows of a row have no token in common, and differ in length by at most one. A window of
    one token has nothing to predict, so such rows have none.
    """

    def __init__(self, shards: Shards, size: int) -> None:
        """Cut rows into windows of at most `size` tokens (at least 3).

        In memory are 8 bytes per row and 4 per window.
        """
        self.shards = shards
        counts = np.where(shards.lengths < 2, 0, -(-shards.lengths // size))
        self._first = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])
        self.lengths = np.empty(self._first[-1], np.int32)
        """Tokens of each window, at least 2 (int32, [windows])."""
        for start in range(0, len(self.lengths), _AT_ONCE):
            windows = np.arange(start, min(start + _AT_ONCE, len(self.lengths)))
            _, begins, ends = self._bounds(windows)
            self.lengths[windows] = ends - begins

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, windows: np.ndarray) -> np.ndarray:
        """The token ids of some windows, concatenated (int32)."""
        rows, begins, ends = self._bounds(windows)
        return self.shards.tokens(rows, begins, ends - begins)

    def _bounds(self, windows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The row of each window, its first token, and the one after its last."""
        rows = np.searchsorted(self._first, windows, side="right") - 1
        number, lengths = windows - self._first[rows], self.shards.lengths[rows].astype(np.int64)
        count = self._first[rows + 1] - self._first[rows]
        return rows, number * lengths // count, (number + 1) * lengths // count
