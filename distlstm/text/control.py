"""Control characters in texts from files, made visible before a terminal gets them."""

import re

_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but newline and tab, DEL, and C1, whose U+009B is as ESC [
    "\u202a-\u202e\u2066-\u2069]"  # what reorders the characters of a line
)


def visible(text: str) -> str:
    r"""The text with control characters as escapes (`\x1b`), which no terminal obeys."""
    return _CONTROL.sub(lambda found: _escaped(found[0]), text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
