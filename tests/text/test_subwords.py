"""Tests of subwords: what they are, and that long or short tokens do no harm."""

import pyarrow as pa

from distlstm.text.subwords import Subwords, subwords_of


def of_token(subwords: Subwords, token: int) -> set[int]:
    return set(subwords.values[subwords.offsets[token] : subwords.offsets[token + 1]].tolist())


def test_subwords_are_those_of_the_marked_token() -> None:
    subwords = subwords_of(pa.array(["cat"]))
    assert subwords.count == len({"<ca", "cat", "at>", "<cat", "cat>", "<cat>"})
    assert of_token(subwords, 0) == set(range(6))


def test_tokens_share_what_they_have_in_common() -> None:
    subwords = subwords_of(pa.array(["walked", "talked", "xyz"]))
    assert len(of_token(subwords, 0) & of_token(subwords, 1)) == len(
        {"alk", "lke", "ked", "ed>", "alke", "lked", "ked>", "alked", "lked>"}
    )
    assert not of_token(subwords, 0) & of_token(subwords, 2)


def test_a_token_of_one_character_has_none() -> None:
    subwords = subwords_of(pa.array(["天", "a", "天气"]))
    assert not of_token(subwords, 0)
    assert not of_token(subwords, 1)
    assert len(of_token(subwords, 2)) == 3


def test_a_repeated_subword_counts_once_and_long_tokens_are_read_in_part() -> None:
    subwords = subwords_of(pa.array(["a" * 10_000]))
    assert len(of_token(subwords, 0)) == len(subwords.values) == len({"<aa", "aaa", "aa>"}) * 3


def test_no_tokens_have_no_subwords() -> None:
    subwords = subwords_of(pa.array([], pa.string()))
    assert subwords.offsets.tolist() == [0]
    assert subwords.count == 0
