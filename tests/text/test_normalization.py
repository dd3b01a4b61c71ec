"""Tests of distlstm.text.normalization."""

import unicodedata

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlstm.config import TextConfig
from distlstm.text.normalization import clean_names, is_blank, normalized, normalized_word

TEXTS = st.lists(st.none() | st.text(st.characters(codec="utf-8", exclude_categories=["Cn"])))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\ufeffgreat", "great"),
        ("gr\u200be\u00ada\u2060t", "great"),
        ("\u202egreat\u202c \u200f\u2067!", "great !"),
        ("\ufeff great", "great"),
        ("❤\ufe0f", "❤"),
        ("Ｇｒｅａｔ，１２３！", "Great,123!"),
        ("cafe\u0301", "café"),
        ("e\u200b\u0301", "é"),
        ("ﬁne… №5", "fine... No5"),
        ("ｶﾞ", "ガ"),
        ("می\u200cروم", "می\u200cروم"),
        ("👨\u200d👩\u200d👧", "👨\u200d👩\u200d👧"),
        ("क्\u200dष", "क्\u200dष"),
    ],
)
def test_texts_that_look_the_same_are_the_same(text: str, expected: str) -> None:
    assert normalized(pa.array([text, None, "a"]), TextConfig()).to_pylist() == [
        *(expected, None),
        "a",
    ]
    assert normalized_word(text, TextConfig()) == expected


def test_without_normalization_texts_stay_as_they_are() -> None:
    config, texts = TextConfig(normalization="none"), pa.array(["\ufeffＡ", None])
    assert normalized(texts, config).to_pylist() == ["\ufeffＡ", None]
    assert normalized_word("\ufeffＡ", config) == "\ufeffＡ"


@settings(max_examples=60)
@given(TEXTS, st.data())
def test_normalizing_twice_or_a_slice_changes_nothing(
    texts: list[str | None], data: st.DataObject
) -> None:
    start = data.draw(st.integers(0, len(texts)))
    column = pa.array(texts, pa.string())
    once = normalized(column, TextConfig())
    assert normalized(once, TextConfig()).to_pylist() == once.to_pylist()
    assert normalized(column.slice(start), TextConfig()).to_pylist() == once.to_pylist()[start:]
    for text, found in zip(texts, once.to_pylist(), strict=True):
        if text is None or text.isascii():
            assert found == text
        else:
            assert unicodedata.is_normalized("NFKC", found)


def test_names_keep_what_looks_different() -> None:
    names = pa.array([" cafe\u0301", "\ufeff x² ", "Ａ", " a", None, "\u200b"])
    assert clean_names(names).to_pylist() == ["café", "x²", "Ａ", "a", None, ""]


@pytest.mark.parametrize(
    ("text", "blank"),
    [
        *[("", True), (" \t", True), ("\ufeff", True), ("\u3000\u200b\u00a0", True)],
        *[("\u200c\u200d", True), ("a", False), ("\ufeffa", False), ("字", False), (None, None)],
    ],
)
def test_a_text_is_blank_if_it_shows_nothing(text: str | None, blank: bool | None) -> None:
    assert is_blank(pa.array(["é", text], pa.string())).to_pylist() == [False, blank]
