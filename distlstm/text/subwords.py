"""Subwords: the character n-grams of tokens, through which rare words learn from similar words.

As in Bojanowski et al. 2017, Enriching Word Vectors with Subword Information, a word is put between
`<` and `>`, so that its beginning and end differ from its middle.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

_SHORTEST, _LONGEST = 3, 5
_CHARACTERS_READ = 40


@dataclass(frozen=True)
class Subwords:
    """The subword ids of tokens, concatenated.

    Those of token i are `values[offsets[i]:offsets[i + 1]]`: `values` is int32, `offsets` is int64
    [tokens + 1]. All ids are below `count`.
    """

    values: np.ndarray
    offsets: np.ndarray
    count: int


def subwords_of(tokens: pa.Array) -> Subwords:
    """The distinct subwords of 3 to 5 characters of each token (string, [tokens]).

    A token of one character has none: with its two marks, it would be its only subword.
    """
    numbers: dict[str, int] = {}
    values: list[int] = []
    offsets = [0]
    for token in tokens.to_pylist():
        if len(token) > 1:
            marked = f"<{token[:_CHARACTERS_READ]}>"
            values += sorted({numbers.setdefault(s, len(numbers)) for s in _pieces(marked)})
        offsets.append(len(values))
    return Subwords(np.array(values, np.int32), np.array(offsets, np.int64), len(numbers))


def _pieces(marked: str) -> list[str]:
    return [
        marked[start : start + length]
        for length in range(_SHORTEST, _LONGEST + 1)
        for start in range(len(marked) - length + 1)
    ]
