"""Reads pretrained token vectors in the text formats of GloVe, word2vec and fastText.

A line is a word and its numbers, separated by single spaces; word2vec and fastText files begin with
a line `number-of-words dimension`. A file has millions of lines, and only those of the vocabulary
are parsed and kept. The first vector and the last line are always checked, which detects other
formats and truncated files.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import BinaryIO

import numpy as np

from distlstm.config import TextConfig
from distlstm.errors import UserError
from distlstm.text.splitting import as_token

_LONGEST_LINE = 2**20
_HEADER = re.compile(rb"(\d+) (\d+)\s*")
_OTHER_SPELLING, _EXACT = 1, 2


@dataclass(frozen=True)
class VectorLines:
    """The lines of an open file from its first vector on, and the dimension of the vectors."""

    lines: Iterator[tuple[int, bytes]]
    """Line numbers, from 1, and raw lines; blank lines are skipped."""
    dimension: int
    name: str
    """The name of the file, for errors."""

    @classmethod
    def of(cls, file: BinaryIO, *, name: str) -> "VectorLines":
        """Read the header, if there is one, and the first vector.

        Raises:
            UserError: the file is empty, unreadable or in another format.
        """
        lines = _numbered(file, name)
        number, first = next(lines, (1, b""))
        header = _HEADER.fullmatch(first)
        if header is not None:
            number, first = next(lines, (2, b""))
        numbers = _fields(first)[1:]
        dimension = int(header[2]) if header else len(numbers)
        if not 0 < dimension == len(numbers) or _parse(numbers) is None:
            raise UserError(
                f"{name}, line {number}, is not a word and {dimension or 'its'} numbers. "
                "text.vectors takes the text formats of GloVe, word2vec and fastText, plain or .gz."
            )
        return cls(chain([(number, first)], lines), dimension, name)

    def numbers(self, number: int, line: bytes) -> np.ndarray | None:
        """The vector of a line, float32 [D]; None if its word has a space, since no token has one.

        Raises:
            UserError: the line does not have D numbers, or one of them is not finite.
        """
        word, *fields = _fields(line)
        found, surplus = _parse(fields[-self.dimension :]), fields[: -self.dimension]
        is_phrase = len(surplus) > 0 and _parse(surplus) is None
        where = f"{self.name}, line {number}: {word[:40].decode('utf-8', 'replace')!r}"
        if found is None or len(found) < self.dimension or (surplus and not is_phrase):
            raise UserError(
                f"{where} is not followed by {self.dimension} numbers. Is the file complete?"
            )
        if not np.isfinite(found).all():
            raise UserError(f"{where} has a vector with a number that is not finite.")
        return None if is_phrase else found


def match_vectors(vectors: VectorLines, tokens: Sequence[str], config: TextConfig) -> np.ndarray:
    """The vector of each token, float32 [V, D]; NaN where the file has none.

    The first of several lines with the same word counts. A token that is not in the file takes the
    first word that equals it as this config spells tokens: normalized, in lower case.

    Raises:
        UserError: the line of a token, or the last line, is damaged; the message has its number.
    """
    matrix = np.full((len(tokens), vectors.dimension), np.nan, np.float32)
    ids = {token: token_id for token_id, token in enumerate(tokens)}
    found = bytearray(len(tokens))
    number, line = 0, b""
    for number, line in vectors.lines:
        word = line[: line.find(b" ")].decode("utf-8", "replace")
        token_id, match = ids.get(word), _EXACT
        if token_id is None:
            token_id, match = ids.get(as_token(word, config)), _OTHER_SPELLING
        if token_id is None or found[token_id] >= match:
            continue
        vector = vectors.numbers(number, line)
        if vector is not None:
            matrix[token_id] = vector
            found[token_id] = match
    vectors.numbers(number, line)
    return matrix


def _numbered(file: BinaryIO, name: str) -> Iterator[tuple[int, bytes]]:
    number = 0
    try:
        while line := file.readline(_LONGEST_LINE):
            number += 1
            if not line.isspace():
                yield number, line
    except (OSError, EOFError) as error:
        raise UserError(f"{name} cannot be read after line {number}: {error}.") from error


def _fields(line: bytes) -> list[bytes]:
    return line.rstrip().split(b" ")


def _parse(fields: Sequence[bytes]) -> np.ndarray | None:
    try:
        with np.errstate(over="ignore"):
            return np.array(list(map(float, fields)), np.float32)
    except ValueError:
        return None
