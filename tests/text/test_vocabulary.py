"""Tests of distlstm.text.vocabulary."""

from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distlstm.config import TextConfig
from distlstm.errors import UserError
from distlstm.text.vocabulary import PADDING_ID, UNKNOWN_ID, Vocabulary

COUNTS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs", "Z", "C"]), min_size=1, max_size=4),
    st.integers(1, 4),
    max_size=20,
)


def table_of(counts: dict[str, int]) -> pa.Table:
    schema = pa.schema([("token", pa.string()), ("count", pa.int64())])
    return pa.table([list(counts), list(counts.values())], schema=schema)


def counted(counts: dict[str, int], **config: int) -> Vocabulary:
    return Vocabulary.from_counts(table_of(counts), TextConfig(**config))  # type: ignore[arg-type]


def words(vocabulary: Vocabulary) -> list[str]:
    result: list[str] = vocabulary.tokens.to_pylist()
    return result[2:]


@settings(max_examples=60)
@given(COUNTS, st.integers(1, 4), st.integers(1, 20), st.randoms())
def test_the_order_is_by_count_then_by_bytes_whatever_order_the_counts_come_in(
    counts: dict[str, int], min_count: int, max_vocabulary: int, random: object
) -> None:
    shuffled = sorted(counts, key=lambda _: random.random())  # type: ignore[attr-defined]
    limits = {"min_count": min_count, "max_vocabulary": max_vocabulary}
    vocabulary = counted({token: counts[token] for token in shuffled}, **limits)
    frequent = [token for token in counts if counts[token] >= min_count]
    ordered = sorted(frequent, key=lambda token: (-counts[token], token.encode()))
    assert words(vocabulary) == ordered[:max_vocabulary]
    assert vocabulary.to_text() == counted(counts, **limits).to_text()


def test_a_count_at_the_limit_is_enough_and_one_less_is_not() -> None:
    assert words(counted({"a": 3, "b": 2}, min_count=3)) == ["a"]


def test_counts_in_chunks_and_large_strings_are_read() -> None:
    part = pa.table({"token": pa.array(["b", "a"], pa.large_string()), "count": [2, 2]})
    other = pa.table({"token": pa.array(["c"], pa.large_string()), "count": [9]})
    vocabulary = Vocabulary.from_counts(pa.concat_tables([part, other]), TextConfig())
    assert words(vocabulary) == ["c", "a", "b"]


def test_nothing_counted_leaves_the_two_special_tokens() -> None:
    vocabulary = counted({})
    assert len(vocabulary) == 2
    assert vocabulary.to_text() == "<pad>\n<unk>\n"


@settings(max_examples=60)
@given(COUNTS, COUNTS, st.integers(1, 4), st.integers(1, 20))
def test_a_grown_vocabulary_keeps_all_ids_and_appends_the_most_frequent_others(
    earlier: dict[str, int], later: dict[str, int], min_count: int, max_vocabulary: int
) -> None:
    before = counted(earlier, min_count=1, max_vocabulary=10)
    others = {token: count for token, count in later.items() if token not in words(before)}
    config = TextConfig(min_count=min_count, max_vocabulary=max_vocabulary)
    grown = before.grown(table_of(later), config)
    kept, room = words(before), max(0, max_vocabulary - len(words(before)))
    added = words(counted(others, min_count=min_count))[:room]
    assert words(grown) == kept + added
    assert grown.grown(table_of(later), config) == grown


def test_ids_follow_the_two_special_ones_and_the_rest_is_unknown() -> None:
    vocabulary = counted({"cat": 9, "猫": 3})
    tokens = pa.array(["skipped", "猫", "dog", "cat", "", "<unk>"]).slice(1)
    ids = vocabulary.ids_of(tokens)
    assert ids.to_pylist() == [3, UNKNOWN_ID, 2, UNKNOWN_ID, UNKNOWN_ID]
    assert ids.type == pa.int32()
    assert (PADDING_ID, UNKNOWN_ID) == (0, 1)


@settings(max_examples=30)
@given(COUNTS)
def test_what_is_saved_is_loaded_and_saved_again_byte_for_byte(
    tmp_path_factory: pytest.TempPathFactory, counts: dict[str, int]
) -> None:
    path = tmp_path_factory.mktemp("vocabulary") / "v.txt"
    vocabulary = counted(counts)
    vocabulary.save(path)
    loaded = Vocabulary.load(path)
    assert loaded == vocabulary
    assert path.read_bytes() == loaded.to_text().encode()
    assert path.read_bytes().count(b"\n") == len(vocabulary)


def test_only_a_newline_ends_a_token_and_its_line_number_is_its_id(tmp_path: Path) -> None:
    vocabulary = counted({"好": 4, "\x85x": 3, "\u2028": 2})
    vocabulary.save(tmp_path / "v.txt")
    assert (tmp_path / "v.txt").read_text(encoding="utf-8").split("\n")[2] == "好"
    assert Vocabulary.load(tmp_path / "v.txt") == vocabulary


def test_vocabularies_of_other_tokens_or_order_are_not_equal() -> None:
    assert counted({"a": 3, "b": 2}) != counted({"a": 2, "b": 3})
    assert counted({"a": 3}) != "a"


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<pad>\n",
        b"<unk>\n<pad>\na\n",
        b"<pad>\n<unk>\ncut",
        b"<pad>\r\n<unk>\r\na\r\n",
        b"<pad>\n<unk>\n\xe4\xbd\n",
    ],
)
def test_a_file_that_another_program_changed_is_refused_by_name(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "v.txt").write_bytes(content)
    with pytest.raises(UserError, match=r"v\.txt"):
        Vocabulary.load(tmp_path / "v.txt")


@pytest.mark.parametrize("name", ["missing.txt", "."])
def test_a_vocabulary_that_is_not_there_is_a_user_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="Cannot read the vocabulary"):
        Vocabulary.load(tmp_path / name)
