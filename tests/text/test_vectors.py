"""Tests of distlstm.text.vectors."""

import io
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlstm.config import TextConfig
from distlstm.errors import UserError
from distlstm.text.vectors import VectorLines, match_vectors

NAN = [float("nan")] * 2
AS_IT_IS = TextConfig(normalization="none", lowercase=False)


def match(
    content: bytes, tokens: Sequence[str], config: TextConfig = AS_IT_IS
) -> list[list[float]]:
    vectors = VectorLines.of(io.BytesIO(content), name="v.txt")
    matrix = match_vectors(vectors, tokens, config)
    assert matrix.dtype == np.float32
    assert matrix.shape == (len(tokens), vectors.dimension)
    found: list[list[float]] = matrix.tolist()
    return found


@pytest.mark.parametrize(
    "content",
    [
        b"a 1 2\nb 3 4\n",
        b"2 2\na 1 2\nb 3 4\n",
        b"2 2\na 1 2 \nb 3 4 \n",  # fastText and word2vec end a line with a space
        b"2 2\r\na 1 2\r\nb 3 4\r\n",
        b"a 1e0 2.0\nb 3 4",
        b"a 1 2\n\nb 3 4\n\n",
        b"x 9 9\na 1 2\nb 3 4\na 5 6\nA 7 8\n",
        b"a 1 2\n. . . 9 9\nb name@domain.com 9 9\nb 3 4\na b c 9 9\n",
        b"\xff\xfe 9 9\na 1 2\n\xe5\x91 9 9\nb 3 4\n",
        b"x\xc2\xa0y 9 9\na 1 2\nb 3 4\n",  # a no-break space is a letter as any other
    ],
)
def test_the_three_formats_are_read(content: bytes) -> None:
    assert match(content, ["a", "b"]) == [[1, 2], [3, 4]]


def test_what_is_not_in_the_file_is_nan() -> None:
    found = match("大 1 2\nb 3 4\n".encode(), ["a", "大", ""])
    np.testing.assert_array_equal(found, [NAN, [1, 2], NAN])


def test_lower_case_tokens_take_the_first_word_of_any_case_unless_there_is_their_own() -> None:
    content = "PARIS 1 2\nParis 3 4\nÉté 5 6\nthe 7 8\nThe 9 9\nb 3 4\n".encode()
    tokens = ["paris", "été", "the"]
    assert match(content, tokens, TextConfig()) == [[1, 2], [5, 6], [7, 8]]
    np.testing.assert_array_equal(match(content, tokens), [NAN, NAN, [7, 8]])
    late = b"THE 1 2\nThe 3 4\nthe 5 6\nthe 7 8\nTHE 9 9\n"
    assert match(late, ["the"], TextConfig()) == [[5, 6]]


def test_normalized_tokens_take_the_first_word_that_looks_the_same() -> None:
    content = "cafe\u0301 1 2\nＡＢＣ 3 4\n\ufeffgood 5 6\ngood 7 8\n".encode()
    tokens = ["café", "abc", "good"]
    assert match(content, tokens, TextConfig()) == [[1, 2], [3, 4], [7, 8]]
    np.testing.assert_array_equal(match(content, tokens), [NAN, NAN, [7, 8]])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "line 1, is not a word and its numbers"),
        (b"5 2\n", "line 2, is not a word"),
        (b"\x00\x01\x02\x03", "line 1, is not a word"),
        (b"1 2\n\x00\x01 \x02\x03 \x04", "line 2, is not a word"),
        (b"word\n", "line 1, is not a word"),
        (b"a 1 2\nb 3\nc 5 6\n", "line 2: 'b' is not followed by 2 numbers"),
        (b"a 1 2\nb 3 4 5\nc 5 6\n", "line 2: 'b' is not followed by 2 numbers"),
        (b"a 1 2\nb\nc 5 6\n", "line 2: 'b' is not followed by 2 numbers"),
        (b"a 1 2\nb 3 x\nc 5 6\n", "line 2: 'b' is not followed by 2 numbers"),
        (b"9 3\na 1 2\n", "line 2, is not a word and 3 numbers"),
        (b"9 3\na 1 2 3 4\n", "line 2, is not a word and 3 numbers"),
        (b"a 1 2\nx 3 4\ny 5", "line 3: 'y' is not followed by 2 numbers"),
        (b"a 1 2\nx 3 4\ny", "line 3: 'y' is not followed by 2 numbers"),
        (b"a 1 2\nx 3 4\ny 5 -", "line 3: 'y' is not followed by 2 numbers"),
        (b"a 1 2\nb nan 4\nc 5 6\n", "line 2: 'b' has a vector with a number that is not finite"),
        (b"a 1 2\nb 3 -inf\nc 5 6\n", "line 2: 'b' has a vector with a number that is not finite"),
        (b"a 1 2\nb 3 1e39\nc 5 6\n", "line 2: 'b' has a vector with a number that is not finite"),
    ],
)
def test_a_damaged_file_is_named_with_the_line(content: bytes, message: str) -> None:
    with pytest.raises(UserError) as raised:
        match(content, ["b", "a"])
    assert f"v.txt, {message}" in str(raised.value)


def test_lines_that_nobody_wants_are_not_looked_at() -> None:
    assert match(b"a 1 2\nx nan\ny 1 2 3\nb 3 4\n", ["b"]) == [[3, 4]]


def test_a_file_without_line_ends_is_refused_before_it_fills_the_memory() -> None:
    with pytest.raises(UserError, match="line 1"):
        match(b"\x7f" * 2**22, ["a"])


WORDS = st.text(st.characters(exclude_characters=" \n\r\t\v\f", codec="utf-8"), min_size=1)
NUMBERS = st.floats(-1e3, 1e3, width=32)


@given(
    table=st.dictionaries(WORDS, st.tuples(NUMBERS, NUMBERS, NUMBERS), min_size=1, max_size=9),
    header=st.booleans(),
    others=st.lists(WORDS, max_size=3),
)
def test_what_is_written_is_read(
    table: dict[str, tuple[float, ...]], header: bool, others: list[str]
) -> None:
    lines = [f"{word} {' '.join(map(repr, vector))}" for word, vector in table.items()]
    content = "\n".join([f"{len(table)} 3"] * header + lines).encode()
    tokens = list({*table, *others})
    expected = [table.get(token, (float("nan"),) * 3) for token in tokens]
    np.testing.assert_array_equal(match(content, tokens), np.array(expected, np.float32))
