"""Splits text into tokens: words, punctuation marks, and single Han and kana characters.

All steps are compiled kernels on whole Arrow columns. Finding the words of a script without spaces
takes a dictionary. Characters need none, and a recurrent network that reads them loses little, so
Han and kana are always split by character.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distlstm.config import TextConfig
from distlstm.text.normalization import normalized, normalized_word

# RE2 patterns of the tokens that need no spaces around them. An apostrophe stays with the letters
# after it: "don't" -> "don", "'t".
_SEPARATE = r"('\pL*|[\p{P}\p{S}]|\p{Han}|\p{Hiragana}|\p{Katakana})"
_SEPARATE_IN_ASCII = r"('[a-zA-Z]*|[!-/:-@\[-`{-~])"  # equal on ASCII, at a third of the cost
_CHARACTER = r"(?s)(.)"
_CHARACTERS_PER_TOKEN = 32


def split(texts: pa.Array, config: TextConfig) -> pa.ListArray:
    """Split each text (string, [rows]) into its tokens, at least the first `max_tokens` of them.

    Null stays null. Only the first `32 * max_tokens` characters of a text are read, which limits
    the cost of very long texts.
    """
    texts = normalized(pc.utf8_slice_codeunits(texts, 0, _num_read(config)), config)
    if config.lowercase:
        texts = pc.utf8_lower(texts)
    if config.unit == "character":
        spaced = _space_out(texts, _CHARACTER)
    else:
        spaced = _space_out_words(texts)
    return pc.utf8_split_whitespace(pc.utf8_trim_whitespace(spaced))


def as_token(word: str, config: TextConfig) -> str:
    """A word with the characters that `split` would give it, for words that are one token."""
    word = normalized_word(word, config)
    return word.lower() if config.lowercase else word


def _space_out_words(texts: pa.Array) -> pa.Array:
    is_ascii = pc.fill_null(pc.string_is_ascii(texts), True)
    others = pc.invert(is_ascii)
    spaced = pc.replace_with_mask(
        texts, is_ascii, _space_out(texts.filter(is_ascii), _SEPARATE_IN_ASCII)
    )
    return pc.replace_with_mask(spaced, others, _space_out(texts.filter(others), _SEPARATE))


def _space_out(texts: pa.Array, pattern: str) -> pa.Array:
    return pc.replace_substring_regex(texts, pattern=pattern, replacement=r" \1 ")


def is_longer_than_read(texts: pa.Array, config: TextConfig) -> np.ndarray:
    """Whether `split` did not read the end of a text (bool, [rows]); false for null."""
    limit = _num_read(config)
    is_longer = np.zeros(len(texts), bool)
    # A text has no more characters than bytes, so only texts of many bytes need counting.
    many_bytes = np.flatnonzero(pc.fill_null(pc.greater(pc.binary_length(texts), limit), False))
    is_longer[many_bytes] = pc.greater(pc.utf8_length(texts.take(many_bytes)), limit)
    return is_longer


def _num_read(config: TextConfig) -> int:
    return _CHARACTERS_PER_TOKEN * config.max_tokens
