"""Tests of splitting, columns, vocabulary, labels and tokenizer."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from distlstm.config import TextConfig
from distlstm.errors import UserError
from distlstm.text.columns import hash_texts, read_labels, read_texts
from distlstm.text.labels import LabelSet
from distlstm.text.splitting import split
from distlstm.text.tokenizer import Tokenizer
from distlstm.text.vocabulary import UNKNOWN_ID, Vocabulary


def tokens(text: str, **config: object) -> list[str]:
    column = read_texts(pa.array([text])).texts
    result: list[str] = split(column, TextConfig(**config))[0].as_py()  # type: ignore[arg-type]
    return result


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Don't stop, it's 5%!", ["don", "'t", "stop", ",", "it", "'s", "5", "%", "!"]),
        ("你好world、カナ ひ", ["你", "好", "world", "、", "カ", "ナ", "ひ"]),
        ("  naïve\t\ncafé ", ["naïve", "café"]),
        ("한국어 текст", ["한국어", "текст"]),
        ("<pad>", ["<", "pad", ">"]),
    ],
)
def test_words_apart_punctuation_apart_han_and_kana_by_character(
    text: str, expected: list[str]
) -> None:
    assert tokens(text) == expected


def test_the_unit_may_be_the_character_and_case_may_stay() -> None:
    assert tokens("Ab 好", unit="character", lowercase=False) == ["A", "b", "好"]


def test_a_text_of_ten_million_characters_costs_no_more_than_a_long_one() -> None:
    column = pa.array(["word " * 2_000_000])
    assert len(split(column, TextConfig(max_tokens=10))[0]) <= 32 * 10


def test_what_is_no_text_becomes_null_with_its_reason() -> None:
    column = read_texts(pa.array([b"ok", None, b"", b" \t", b"\xff\xfe", "é".encode()]))
    assert column.texts.to_pylist() == ["ok", None, None, None, None, "é"]
    assert column.missing == {"null": 1, "empty": 2, "not_utf8": 1}


@pytest.mark.parametrize(
    "column",
    [
        pa.array(["a", "b"], pa.large_string()),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.array([b"a", b"b"], pa.large_binary()),
        pa.array(["a", "b"], pa.string_view()),
        pa.array(["zero", "a", "b"]).slice(1),
    ],
)
def test_every_arrow_text_type_is_read_and_so_are_slices(column: pa.Array) -> None:
    assert read_texts(column).texts.to_pylist() == ["a", "b"]


def test_numbers_are_no_text() -> None:
    with pytest.raises(UserError, match="int64"):
        read_texts(pa.array([1, 2]))


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([1, None, 10]), ["1", None, "10"]),
        (pa.array([1.0, float("nan"), None]), ["1", None, None]),
        (pa.array([True, False]), ["true", "false"]),
        (pa.array([" x ", "", None]), ["x", None, None]),
        (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"]),
    ],
)
def test_labels_may_be_texts_integers_booleans_or_whole_floats(
    column: pa.Array, expected: list[str | None]
) -> None:
    assert read_labels(column).to_pylist() == expected


@pytest.mark.parametrize("column", [pa.array([0.5]), pa.array([[1]])])
def test_what_cannot_be_a_label_is_refused(column: pa.Array) -> None:
    with pytest.raises(UserError):
        read_labels(column)


def test_labels_that_are_numbers_are_ordered_as_numbers() -> None:
    assert LabelSet.of(["10", "9", "1"]).names == ("1", "9", "10")
    assert LabelSet.of(["b", "10", "a"]).names == ("10", "a", "b")
    ids = LabelSet(("a", "b")).ids_of(pa.array(["b", None, "z", "a"]))
    assert ids.to_pylist() == [1, -1, -1, 0]


def counts(**values: int) -> pa.Table:
    return pa.table({"token": list(values), "count": list(values.values())})


def test_the_vocabulary_is_ordered_by_count_then_token() -> None:
    vocabulary = Vocabulary.from_counts(counts(b=2, a=2, c=5, rare=1), TextConfig())
    assert vocabulary.tokens.to_pylist() == ["<pad>", "<unk>", "c", "a", "b"]


def test_the_vocabulary_keeps_the_most_frequent() -> None:
    vocabulary = Vocabulary.from_counts(counts(a=3, b=2, c=9), TextConfig(max_vocabulary=2))
    assert vocabulary.tokens.to_pylist()[2:] == ["c", "a"]


def test_a_vocabulary_file_has_the_id_as_line_number(tmp_path: Path) -> None:
    vocabulary = Vocabulary.from_counts(counts(**{"好": 3, "\x85x": 2}), TextConfig())
    vocabulary.save(tmp_path / "v.txt")
    assert (tmp_path / "v.txt").read_text(encoding="utf-8").split("\n")[2] == "好"
    assert Vocabulary.load(tmp_path / "v.txt") == vocabulary


@pytest.mark.parametrize("content", [b"", b"a\nb\n", b"<pad>\n<unk>\ncut", b"\xff"])
def test_a_damaged_vocabulary_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.txt").write_bytes(content)
    with pytest.raises(UserError):
        Vocabulary.load(tmp_path / "v.txt")


def test_encoding_equals_a_lookup_word_by_word() -> None:
    texts = ["the cat", None, "a the the dog", "x", "cat " * 9]
    vocabulary = Vocabulary.from_counts(counts(the=9, cat=3), TextConfig())
    encoded = Tokenizer(TextConfig(max_tokens=3), vocabulary).encode(
        read_texts(pa.array(["skipped", *texts]).slice(1)).texts
    )
    known = {"the": 2, "cat": 3}
    expected = [[known.get(w, UNKNOWN_ID) for w in (t or "").split()[:3]] for t in texts]
    rows = np.split(encoded.values, encoded.offsets[1:-1])
    assert [row.tolist() for row in rows] == expected
    assert encoded.truncated.tolist() == [False, False, True, False, True]
    kept = encoded.filter(np.array([True, False, False, True, True]))
    rows = np.split(kept.values, kept.offsets[1:-1])
    assert [row.tolist() for row in rows] == [expected[0], expected[3], expected[4]]


def test_a_text_has_the_same_hash_in_every_run() -> None:
    hashes = hash_texts(pa.array(["distlstm", "分类"])).tolist()
    assert hashes == [12814677255365684717, 12088269414298530809]
