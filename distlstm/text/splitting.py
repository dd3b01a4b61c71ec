"""Splitting text into tokens: words, punctuation apart, and Han and kana by character.

Everything runs on whole Arrow columns in compiled kernels. Word boundaries of scripts that write
without spaces would need a dictionary; single characters need none and, read by a recurrent
network, lose little, which is why Han and kana are always split by character.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distlstm.config import TextConfig

# RE2. An apostrophe stays with the letters that follow it: "don't" -> "don", "'t".
_APART = r"('\pL*|[\p{P}\p{S}]|\p{Han}|\p{Hiragana}|\p{Katakana})"
_APART_IN_ASCII = r"('[a-zA-Z]*|[!-/:-@\[-`{-~])"  # the same there, at a third of the cost
_CHARACTER = r"(?s)(.)"
_CHARACTERS_PER_TOKEN = 32


def split(texts: pa.Array, config: TextConfig) -> pa.ListArray:
    """Split each text (string, [rows]) into at least its first `max_tokens` tokens.

    A null stays null. Of each text, `32 * max_tokens` characters are read, so that a text of any
    length costs no more than a long one.
    """
    texts = pc.utf8_slice_codeunits(texts, 0, _num_read(config))
    if config.lowercase:
        texts = pc.utf8_lower(texts)
    if config.unit == "character":
        spaced = _space_out(texts, _CHARACTER)
    else:
        spaced = _space_out_words(texts)
    return pc.utf8_split_whitespace(pc.utf8_trim_whitespace(spaced))


def _space_out_words(texts: pa.Array) -> pa.Array:
    is_ascii = pc.fill_null(pc.string_is_ascii(texts), True)
    others = pc.invert(is_ascii)
    spaced = pc.replace_with_mask(
        texts, is_ascii, _space_out(texts.filter(is_ascii), _APART_IN_ASCII)
    )
    return pc.replace_with_mask(spaced, others, _space_out(texts.filter(others), _APART))


def _space_out(texts: pa.Array, pattern: str) -> pa.Array:
    return pc.replace_substring_regex(texts, pattern=pattern, replacement=r" \1 ")


def is_longer_than_read(texts: pa.Array, config: TextConfig) -> np.ndarray:
    """Whether `split` left the end of a text unread (bool, [rows]); false for a null."""
    limit = _num_read(config)
    is_longer = np.zeros(len(texts), bool)
    # A text has no more characters than bytes, and those need no counting.
    many_bytes = np.flatnonzero(pc.fill_null(pc.greater(pc.binary_length(texts), limit), False))
    is_longer[many_bytes] = pc.greater(pc.utf8_length(texts.take(many_bytes)), limit)
    return is_longer


def _num_read(config: TextConfig) -> int:
    return _CHARACTERS_PER_TOKEN * config.max_tokens
