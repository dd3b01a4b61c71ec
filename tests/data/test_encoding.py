"""Tests of distlstm.data.encoding, in this process: small corpora need no Ray."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distlstm.config import TextConfig
from distlstm.data.corpus import CorpusSpec, EncodedCorpus
from distlstm.data.encoding import encode_corpus
from distlstm.data.labelled import Columns, is_validation
from distlstm.errors import UserError
from distlstm.storage import LocalStorage


def encode(directory: Path, *, text: TextConfig | None = None) -> EncodedCorpus:
    """The corpus of all files in `directory / "data"`."""
    spec = CorpusSpec.find(
        [str(directory / "data")],
        [],
        columns=Columns(),
        text=text or TextConfig(),
        validation_fraction=0.3,
        on_note=print,
    )
    return encode_corpus(spec, LocalStorage(directory / "corpus"), progress=lambda *_: None)


def write(directory: Path, name: str, labels: pa.Array, *, text: str = "row {} of many") -> None:
    path = directory / "data" / name
    path.parent.mkdir(exist_ok=True)
    table = pa.table({"text": [text.format(i) for i in range(len(labels))], "label": labels})
    if path.suffix == ".csv":
        rows = "".join(f"{row['text']},{row['label']}\n" for row in table.to_pylist())
        path.write_text(f"text,label\n{rows}", encoding="utf-8")
    else:
        pq.write_table(table, path)


def labels_of(corpus: EncodedCorpus) -> Counter[str]:
    ids = np.concatenate([corpus.training.label_ids, corpus.validation.label_ids])
    return Counter(corpus.labels.names[i] for i in ids)


def test_labels_are_one_however_the_types_of_their_files_spell_them(tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", pa.array([0, 1] * 20))
    write(tmp_path, "b.csv", pa.array(["0.0", "1.00", "10"] * 10), text="another row {}")
    corpus = encode(tmp_path)
    assert corpus.labels.names == ("0", "1", "10")
    assert labels_of(corpus) == {"0": 30, "1": 30, "10": 10}
    trained = Counter(corpus.labels.names[i] for i in corpus.training.label_ids)
    assert corpus.summary.label_counts == trained


def test_a_label_with_held_out_rows_only_is_learnt_in_whatever_spelling(tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", pa.array(["a", "b"] * 30))
    texts = (f"text {i}" for i in range(99))
    held_out = next(text for text in texts if is_validation(pa.array([text]), 0.3)[0])
    for n, label in enumerate(["True", "TRUE"]):
        write(tmp_path, f"{n}.csv", pa.array([label]), text=held_out)
    corpus = encode(tmp_path)
    assert corpus.labels.names == ("TRUE", "a", "b")
    assert (corpus.training.label_ids == 0).sum() == 2


def test_texts_that_look_the_same_are_never_on_both_sides_of_the_split(tmp_path: Path) -> None:
    words = ["cafe\u0301 {}", "café {}", "\ufeffcafé {}", "ｃａｆé {}"]
    for n, text in enumerate(words):
        write(tmp_path, f"{n}.parquet", pa.array(["a", "b"] * 20), text=text)
    corpus = encode(tmp_path)
    tokens = [
        {tuple(split.take(np.array([row])).token_ids.ravel()) for row in range(len(split))}
        for split in (corpus.training, corpus.validation)
    ]
    assert len(corpus.training) % len(words) == len(corpus.validation) % len(words) == 0
    assert not tokens[0] & tokens[1]


def test_without_normalization_the_split_is_that_of_earlier_versions(tmp_path: Path) -> None:
    write(tmp_path, "a.parquet", pa.array(["a", "b"] * 20), text="cafe\u0301 {}")
    corpus = encode(tmp_path, text=TextConfig(normalization="none"))
    held_out = is_validation(pa.array([f"cafe\u0301 {i}" for i in range(40)]), 0.3)
    assert len(corpus.validation) == held_out.sum()


def with_classes(labels: pa.Array, feature: object) -> pa.Table:
    metadata = {"huggingface": json.dumps({"info": {"features": {"label": feature}}})}
    table = pa.table({"text": [f"row {i} of many" for i in range(len(labels))], "label": labels})
    return table.replace_schema_metadata(metadata)


def test_classes_of_hugging_face_data_sets_have_their_names(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    feature = {"names": ["neg", "pos"], "_type": "ClassLabel"}
    table = with_classes(pa.array([0, 1, -1] * 20), feature)
    pq.write_table(table, tmp_path / "data/a.parquet")
    write(tmp_path, "b.csv", pa.array(["neg", "pos"] * 5), text="another row {}")
    corpus = encode(tmp_path)
    assert labels_of(corpus) == {"neg": 25, "pos": 25}
    assert corpus.summary.dropped == {"no label": 20}


def test_sets_of_classes_have_their_names(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    feature = {"feature": {"names": ["neg", "pos"], "_type": "ClassLabel"}, "_type": "List"}
    pq.write_table(with_classes(pa.array([[0, 1], [1]] * 20), feature), tmp_path / "data/a.parquet")
    corpus = encode(tmp_path)
    assert (corpus.kind, corpus.labels.names) == ("multi", ("neg", "pos"))


def test_a_class_without_a_name_is_an_error_with_its_file(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    feature = {"names": ["neg", "pos"], "_type": "ClassLabel"}
    pq.write_table(with_classes(pa.array([0, 1, 2] * 9), feature), tmp_path / "data/a.parquet")
    with pytest.raises(UserError, match=r"Column 'label' of .*a.parquet has the class 2"):
        encode(tmp_path)
