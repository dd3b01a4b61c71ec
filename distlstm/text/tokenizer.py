"""Turns text columns into token id columns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pyarrow as pa

from distlstm.config import TextConfig
from distlstm.text.splitting import is_longer_than_read, split
from distlstm.text.vocabulary import Vocabulary


@dataclass(frozen=True)
class TokenIds:
    """The token ids of some rows, concatenated.

    Row i is `values[offsets[i]:offsets[i + 1]]`: `values` is int32 [tokens], `offsets` is int64
    [rows + 1]. A row without text is empty. `truncated` (bool, [rows]) marks rows that were cut.
    """

    values: np.ndarray
    offsets: np.ndarray
    truncated: np.ndarray

    @property
    def lengths(self) -> np.ndarray:
        """Number of tokens in each row (int64, [rows])."""
        return np.diff(self.offsets)

    @classmethod
    def concatenate(cls, pieces: Sequence["TokenIds"]) -> Self:
        """The rows of all pieces (at least one), in order."""
        starts = np.cumsum([0, *(len(piece.values) for piece in pieces)])
        offsets = [piece.offsets[1:] + start for piece, start in zip(pieces, starts, strict=False)]
        return cls(
            values=np.concatenate([piece.values for piece in pieces]),
            offsets=np.concatenate([np.zeros(1, np.int64), *offsets]),
            truncated=np.concatenate([piece.truncated for piece in pieces]),
        )

    def count(self, token_id: int) -> np.ndarray:
        """How often a token occurs in each row (int64, [rows])."""
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.values == token_id)])
        return np.asarray(np.diff(before[self.offsets]))

    def take(self, rows: np.ndarray) -> "TokenIds":
        """Some of the rows: by index (int64), or those for which `rows` (bool) is true."""
        lengths = self.lengths[rows]
        return TokenIds(
            values=self.values[run_indices(self.offsets[:-1][rows], lengths)],
            offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
            truncated=self.truncated[rows],
        )


@dataclass(frozen=True)
class Tokenizer:
    """Splits texts into tokens and looks up their ids."""

    config: TextConfig
    vocabulary: Vocabulary

    def encode(self, texts: pa.Array) -> TokenIds:
        """Token ids of each text (string, [rows]), cut at `max_tokens`; a null is an empty row."""
        tokens, is_truncated = truncate(split(texts, self.config), self.config.max_tokens)
        ids = self.vocabulary.ids_of(tokens.flatten())
        return TokenIds(
            values=ids.to_numpy(zero_copy_only=False),
            offsets=tokens.offsets.to_numpy().astype(np.int64),
            truncated=is_truncated | is_longer_than_read(texts, self.config),
        )


def truncate(tokens: pa.ListArray, max_tokens: int) -> tuple[pa.ListArray, np.ndarray]:
    """Cut each row at `max_tokens`; also return which rows were cut (bool, [rows])."""
    offsets = tokens.offsets.to_numpy().astype(np.int64)
    lengths = np.where(tokens.is_valid().to_numpy(zero_copy_only=False), np.diff(offsets), 0)
    is_longer = lengths > max_tokens
    if not is_longer.any() and tokens.null_count == 0:
        return tokens, is_longer
    kept = np.minimum(lengths, max_tokens)
    values = tokens.values.take(pa.array(run_indices(offsets[:-1], kept)))
    new_offsets = np.concatenate([[0], np.cumsum(kept)]).astype(np.int32)
    return pa.ListArray.from_arrays(new_offsets, values), is_longer


def run_indices(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The indices of runs, concatenated: `starts[i], starts[i] + 1, ...` for each i (int64)."""
    ends = np.cumsum(lengths)
    total = int(ends[-1]) if len(ends) else 0
    return np.asarray(np.arange(total) + np.repeat(starts - (ends - lengths), lengths))
