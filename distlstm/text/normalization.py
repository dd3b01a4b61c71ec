"""Makes texts equal that look the same, whatever characters they are written with.

The rows of a column that are ASCII stay as they are, and cost nothing.
"""

import re
import unicodedata
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from distlstm.config import TextConfig

_INVISIBLE = (
    "\ufeff\u200b\u180e\u2060"  # byte order mark, spaces and joiner without width
    "\u00ad\u034f\u2061-\u2064"  # soft hyphen, grapheme joiner, operators
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # direction of writing
    "\ufe00-\ufe0f"  # variants of a glyph
)
"""Characters that nobody sees and that separate nothing, as ranges of a regular expression.

The zero-width joiner and non-joiner are not among them: they change the letters of Persian and of
Indic scripts, and emoji.
"""
_ANY_INVISIBLE = f"[{_INVISIBLE}]"
_COMPILED = re.compile(_ANY_INVISIBLE)
_BLANK = rf"^[\s\p{{Z}}\x{{200C}}\x{{200D}}{_INVISIBLE}]*$"


def normalized(texts: pa.Array, config: TextConfig) -> pa.Array:
    """The texts (string, [rows]) as a model with this config reads them; null stays null.

    With "nfkc": without invisible characters, in Unicode's form NFKC (UAX 15), and trimmed.
    """
    return _changed(texts, "NFKC") if config.normalization == "nfkc" else texts


def normalized_word(word: str, config: TextConfig) -> str:
    """The same for one word."""
    if word.isascii() or config.normalization == "none":
        return word
    return unicodedata.normalize("NFKC", _COMPILED.sub("", word)).strip()


def clean_names(names: pa.Array) -> pa.Array:
    """Trimmed names (string, [rows]) without invisible characters, in Unicode's form NFC.

    Unlike NFKC, it keeps names apart that look different: `x²` and `x2`.
    """
    return pc.utf8_trim_whitespace(_changed(names, "NFC"))


def is_blank(texts: pa.Array) -> pa.Array:
    """Whether a text has no visible character (bool, [rows]); null for null."""
    blank = pc.equal(pc.utf8_trim_whitespace(texts), "")
    others = _not_ascii(texts)
    return pc.replace_with_mask(
        blank, others, pc.match_substring_regex(texts.filter(others), pattern=_BLANK)
    )


def _changed(texts: pa.Array, form: Literal["NFC", "NFKC"]) -> pa.Array:
    others = _not_ascii(texts)
    if not pc.any(others).as_py():
        return texts
    visible = pc.replace_substring_regex(
        texts.filter(others), pattern=_ANY_INVISIBLE, replacement=""
    )
    changed = pc.utf8_trim_whitespace(pc.utf8_normalize(visible, form=form))
    return pc.replace_with_mask(texts, others, changed)


def _not_ascii(texts: pa.Array) -> pa.Array:
    return pc.invert(pc.fill_null(pc.string_is_ascii(texts), True))
