"""Tests of distlstm.text.splitting."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlstm.config import TextConfig
from distlstm.text.splitting import as_token, is_longer_than_read, split

ROWS = ["a b", None, "你好 ok", "x", "Don't"]


def tokens(text: str, config: TextConfig | None = None) -> list[str]:
    result: list[str] = split(pa.array([text]), config or TextConfig())[0].as_py()
    return result


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The CAT sat.", ["the", "cat", "sat", "."]),
        ("<pad>", ["<", "pad", ">"]),
        ("3.14 a_b-c", ["3", ".", "14", "a", "_", "b", "-", "c"]),
        ("http://x.y", ["http", ":", "/", "/", "x", ".", "y"]),
        ("don’t “quote”", ["don", "’", "t", "“", "quote", "”"]),
        ("rock 'n' roll", ["rock", "'n", "'", "roll"]),
        ("''", ["'", "'"]),
        ("今天天气真好,go!", [*"今天天气真好", ",", "go", "!"]),
        ("コーヒーを飲む", [*"コーヒーを飲む"]),
        ("ｶﾅ々〇", [*"カナ々〇"]),
        ("ｉＰｈｏｎｅ，１５", ["iphone", ",", "15"]),
        ("\ufeffgreat, gre\u200bat, gre\u00adat", ["great", ",", "great", ",", "great"]),
        ("cafe\u0301 ﬁne", ["café", "fine"]),
        ("می\u200cروم", ["می\u200cروم"]),
        ("𠮷野家", [*"𠮷野家"]),
        ("iPhone15手机", ["iphone15", *"手机"]),
        ("привет,мир", ["привет", ",", "мир"]),
        ("مرحبا بالعالم", ["مرحبا", "بالعالم"]),
        ("١٢٣ नमस्ते", ["١٢٣", "नमस्ते"]),
        ("a👍b", ["a", "👍", "b"]),
        ("ÀÉ ẞ İ", ["àé", "ß", "i"]),
        ("a\u00a0b\u3000c\u2028d\x85e", ["a", "b", "c", "d", "e"]),
    ],
)
def test_the_scripts_of_the_world_fall_into_these_tokens(text: str, expected: list[str]) -> None:
    assert tokens(text) == expected


def test_characters_stay_as_they_are_without_normalization() -> None:
    config = TextConfig(normalization="none")
    assert tokens("\ufeffgreat", config) == ["\ufeffgreat"]
    assert tokens("Ａ，cafe\u0301", config) == ["ａ", "，", "cafe\u0301"]


def test_case_stays_if_asked_to() -> None:
    assert tokens("The CAT", TextConfig(lowercase=False)) == ["The", "CAT"]


def test_characters_as_units_leave_out_only_the_space_between_them() -> None:
    config = TextConfig(unit="character")
    assert tokens("It's\n你 \u3000👍", config) == ["i", "t", "'", "s", "你", "👍"]


@pytest.mark.parametrize("start", [0, 1, len(ROWS)])
@pytest.mark.parametrize("unit", ["word", "character"])
def test_a_slice_is_split_as_its_rows_are(start: int, unit: str) -> None:
    config = TextConfig(unit=unit)  # type: ignore[arg-type]
    result = split(pa.array(ROWS).slice(start), config)
    expected = [None if row is None else tokens(row, config) for row in ROWS[start:]]
    assert result.to_pylist() == expected


@pytest.mark.parametrize("values", [[], [None], [None, None]])
def test_a_column_without_text_gives_as_many_rows(values: list[None]) -> None:
    assert split(pa.array(values, pa.string()), TextConfig()).to_pylist() == values


@pytest.mark.parametrize("text", ["字" * 100_000, "," * 100_000, "a" * 100_000])
@pytest.mark.parametrize("unit", ["word", "character"])
def test_however_long_a_text_is_few_tokens_come_of_it(text: str, unit: str) -> None:
    config = TextConfig(max_tokens=7, unit=unit)  # type: ignore[arg-type]
    assert 1 <= len(tokens(text, config)) <= 32 * 7


def test_what_counts_as_cut_is_what_was_not_read() -> None:
    texts = pa.array(["e\u0301" * 16, "e\u0301" * 16 + "x", "ﷺ" * 32, "ﷺ" * 33, None])
    config = TextConfig(max_tokens=1)
    assert is_longer_than_read(texts, config).tolist() == [False, True, False, True, False]
    read = split(texts, config).to_pylist()
    assert read[0] == read[1] == ["é" * 16]
    assert read[2] == read[3]


@settings(max_examples=100)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), st.booleans())
def test_splitting_loses_nothing_but_the_space(text: str, by_character: bool) -> None:
    config = TextConfig(
        normalization="none", lowercase=False, unit="character" if by_character else "word"
    )
    found = tokens("x" + text, config)
    assert "".join(found) == "".join(("x" + text).split())
    assert all(token and token == "".join(token.split()) for token in found)
    if by_character:
        assert {len(token) for token in found} == {1}


@settings(max_examples=100)
@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cn", "Co"]), max_size=6))
def test_a_word_of_a_vectors_file_is_spelled_as_its_token(word: str) -> None:
    """Python's Unicode and Arrow's agree; lower case is compared for letters both know."""
    config = TextConfig(lowercase=False)
    found = tokens("x" + word, config)
    assert "".join(found) == "".join(as_token("x" + word, config).split())


@given(st.lists(st.text(st.characters(max_codepoint=127)), max_size=8))
def test_ascii_texts_are_split_alike_beside_others(texts: list[str]) -> None:
    """Rows of ASCII take a faster way, which none of them takes where a letter is not ASCII."""
    alone = split(pa.array(texts, pa.string()), TextConfig()).to_pylist()
    marked = split(pa.array([f"{text} é" for text in texts], pa.string()), TextConfig()).to_pylist()
    assert [[*filter(None, tokens), "é"] for tokens in alone] == [
        [*filter(None, tokens)] for tokens in marked
    ]
