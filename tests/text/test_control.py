"""Tests of distlstm.text.control."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlstm.text.control import visible


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain 天气 é\n\ttab", "plain 天气 é\n\ttab"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x1b]0;title\x07", r"\x1b]0;title\x07"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb\x7f", r"a\x0db\x7f"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
    ],
)
def test_control_characters_become_escapes_that_no_terminal_obeys(text: str, expected: str) -> None:
    assert visible(text) == expected


@given(st.text())
def test_what_is_left_has_no_control_character_but_newline_and_tab(text: str) -> None:
    assert all(c in "\n\t" or not (ord(c) < 32 or 127 <= ord(c) < 160) for c in visible(text))
