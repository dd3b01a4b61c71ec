"""The vocabulary of a model: its tokens, in a reproducible order."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc

from distlstm.config import TextConfig
from distlstm.errors import UserError
from distlstm.regular_file import read_regular

PADDING_ID = 0
UNKNOWN_ID = 1
_SPECIAL = ("<pad>", "<unk>")  # splitting separates "<" and ">", so no text has these tokens

LARGEST_VOCABULARY_FILE = 2**30
"""Bytes; ten million tokens of a hundred bytes."""


@dataclass(frozen=True)
class Vocabulary:
    """Tokens by id: `tokens[i]` is the token of id i. Ids 0 and 1 are padding and unknown."""

    tokens: pa.StringArray

    @classmethod
    def from_counts(cls, counts: pa.Table, config: TextConfig) -> Self:
        """Keep the most frequent tokens of a (token, count) table, ordered by (-count, token)."""
        return cls(pa.array(_SPECIAL)).grown(counts, config)

    def grown(self, counts: pa.Table, config: TextConfig) -> Self:
        """These tokens and, after them, the most frequent others, up to `max_vocabulary`."""
        is_other = ~pc.field("token").isin(self.tokens)
        frequent = counts.filter(is_other & (pc.field("count") >= config.min_count))
        ordered = frequent.sort_by([("count", "descending"), ("token", "ascending")])
        room = max(0, config.max_vocabulary - (len(self) - len(_SPECIAL)))
        kept = ordered["token"].slice(0, room).combine_chunks()
        return type(self)(pa.concat_arrays([self.tokens, kept.cast(pa.string())]))

    def __len__(self) -> int:
        return len(self.tokens)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and bool(self.tokens.equals(other.tokens))

    def ids_of(self, tokens: pa.Array) -> pa.Array:
        """The id (int32) of each token; `UNKNOWN_ID` for tokens not in the vocabulary."""
        return pc.fill_null(pc.index_in(tokens, value_set=self.tokens), UNKNOWN_ID)

    def to_text(self) -> str:
        """One token per line; the line number, from 0, is the id."""
        return "\n".join(self.tokens.to_pylist()) + "\n"

    def save(self, path: Path) -> None:
        """Write `to_text` as UTF-8."""
        path.write_text(self.to_text(), encoding="utf-8", newline="\n")

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing, not regular, too large or not UTF-8, does not begin with
                the special tokens, or contains a token twice.
        """
        try:
            lines = read_regular(path, largest=LARGEST_VOCABULARY_FILE).decode("utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"Cannot read the vocabulary {path}: {error}.") from error
        if tuple(lines[:2]) != _SPECIAL or lines[-1] != "":
            raise UserError(f"{path} is not a vocabulary of distlstm, or is damaged.")
        tokens = pa.array(lines[:-1], pa.string())
        if len(tokens.unique()) < len(tokens):
            raise UserError(f"{path} is damaged: it contains a token twice.")
        return cls(tokens)
