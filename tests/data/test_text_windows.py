"""Tests of texts cut into windows, and of their encoding."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distlstm.config import TextConfig
from distlstm.data.shards import Shards, write_shard
from distlstm.data.text_corpus import EncodedTexts, TextCorpusSpec
from distlstm.data.text_encoding import encode_texts
from distlstm.data.text_windows import TextWindows
from distlstm.errors import UserError
from distlstm.storage import LocalStorage
from distlstm.text.tokenizer import TokenIds


def shards(path: Path, *parts: list[int]) -> Shards:
    """Shards of rows with these lengths; token ids count on from 0 over all rows."""
    begin = 0
    for number, lengths in enumerate(parts):
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        values = np.arange(begin, begin + offsets[-1], dtype=np.int32)
        begin += int(offsets[-1])
        tokens = TokenIds(values, offsets, np.zeros(len(lengths), bool))
        labels = [np.zeros(len(lengths), np.int32)]
        write_shard(LocalStorage(path), str(number), [tokens], labels)
    return Shards([path / str(number) for number in range(len(parts))])


def test_windows_have_every_token_of_longer_rows_once_in_order(tmp_path: Path) -> None:
    found = shards(tmp_path, [5, 1, 0, 12, 2], [7, 30])
    windows = TextWindows(found, 5)
    assert windows.lengths.tolist() == [5, 4, 4, 4, 2, 3, 4, *[5] * 6]
    tokens = windows.take(np.arange(len(windows)))
    assert tokens.tolist() == [*range(5), *range(6, 6 + 12 + 2 + 7 + 30)]
    assert windows.take(np.array([4, 0])).tolist() == [18, 19, 0, 1, 2, 3, 4]


def test_no_window_has_a_single_token(tmp_path: Path) -> None:
    for size in range(3, 9):
        for length in range(40):
            windows = TextWindows(shards(tmp_path / f"{size}-{length}", [length]), size)
            assert windows.lengths.sum() == (length if length > 1 else 0)
            assert set(windows.lengths.tolist()) <= set(range(2, size + 1))


def encoded(tmp_path: Path, **spec: object) -> EncodedTexts:
    found = TextCorpusSpec.find(
        [str(tmp_path / "unlabelled.parquet")],
        column="text",
        text=TextConfig(min_count=1),
        on_note=print,
    )
    if "labelled" in spec:
        path = tmp_path / "labelled.parquet"
        labelled = TextCorpusSpec.find(
            [str(path)], column="text", text=TextConfig(), on_note=print
        ).unlabelled
        found = TextCorpusSpec(
            unlabelled=found.unlabelled,
            labelled=labelled,
            column="text",
            text=found.text,
            held_out_fraction=0.5,
        )
    return encode_texts(found, LocalStorage(tmp_path / "out"), progress=lambda *_: None)


def words(corpus: EncodedTexts, rows: Shards) -> set[str]:
    ids = rows.take(np.arange(len(rows))).token_ids
    return {corpus.vocabulary.tokens[int(i)].as_py() for i in ids}


def write(path: Path, texts: list[str | None]) -> None:
    pq.write_table(pa.table({"text": pa.array(texts, pa.string())}), path)


def test_both_kinds_of_rows_are_read_and_rows_without_text_are_counted(tmp_path: Path) -> None:
    write(tmp_path / "unlabelled.parquet", [f"lake{i} water" for i in range(400)] + [None, " "])
    write(tmp_path / "labelled.parquet", [f"label{i} shore" for i in range(400)])
    corpus = encoded(tmp_path, labelled=True)
    summary = corpus.summary
    kept = summary.num_training + summary.num_validation - 400  # of the labelled rows
    assert 150 < kept < 250  # a half is held out for the classifier
    assert summary.dropped == {"empty text": 1, "null text": 1}
    every = words(corpus, corpus.training) | words(corpus, corpus.validation)
    assert len({word for word in every if word.startswith("lake")}) == 400
    assert len({word for word in every if word.startswith("label")}) == kept
    assert not words(corpus, corpus.training) & words(corpus, corpus.validation) - {
        "water",
        "shore",
    }
    assert 10 < summary.num_validation < 60


def test_a_corpus_without_texts_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "unlabelled.parquet", [None, " ", ""])
    with pytest.raises(UserError, match="No row has a text in 'text'"):
        encoded(tmp_path)


def test_a_single_text_is_too_little(tmp_path: Path) -> None:
    write(tmp_path / "unlabelled.parquet", ["alone"])
    with pytest.raises(UserError, match="too few for a language model"):
        encoded(tmp_path)
