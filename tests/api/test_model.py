"""Tests of `load_model` and `Model.predict`: what batch-predict writes, without Ray."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import distlstm
from distlstm.stages.prediction import in_memory
from tests.conftest import labelled_rows

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_cluster")]
TEXTS = [*labelled_rows(300)["text"], None, "", " \n", "goal " * 3_000]

SERIES = pd.Series(TEXTS)


@pytest.fixture(scope="module")
def written(model: Path, tmp_path_factory: pytest.TempPathFactory) -> pa.Table:
    """What batch-predict writes for the texts, with its two best labels."""
    directory = tmp_path_factory.mktemp("written")
    pq.write_table(pa.table({"text": TEXTS}), directory / "in.parquet")
    distlstm.batch_predict(
        directory / "in.parquet", model=model, output=directory / "out", top_k=2, min_score=0.9
    )
    return pq.ParquetFile(directory / "out/in.parquet").read().drop_columns(["text"])


@pytest.mark.parametrize(
    "texts",
    [
        TEXTS,
        tuple(TEXTS),
        pa.array(TEXTS),
        pa.array(TEXTS, pa.large_string()),
        pa.array(TEXTS).dictionary_encode(),
        pa.chunked_array([TEXTS[:7], TEXTS[7:]]),
        pa.table({"n": range(len(TEXTS)), "text": TEXTS}),
        pd.Series(TEXTS),
        pd.DataFrame({"text": TEXTS}),
        pd.concat([part.astype("string[pyarrow]") for part in (SERIES[:7], SERIES[7:])]),
    ],
    ids=lambda texts: type(texts).__name__,
)
def test_predict_gives_bit_for_bit_what_batch_predict_writes(
    model: Path, written: pa.Table, texts: Any
) -> None:
    found = distlstm.load_model(model).predict(texts, top_k=2, min_score=0.9)
    assert found.table.equals(written), "every label, and every bit of every score"
    assert found.labels == written["predicted_label"].to_pylist()


def test_rows_of_pandas_keep_their_index(model: Path) -> None:
    frame = pd.DataFrame({"body": ["goal", None], "n": [1, 2]}, index=["x", "y"])
    found = distlstm.load_model(model).predict(frame, text_column="body").to_pandas()
    assert list(found.index) == ["x", "y"]
    assert found.loc["x", "predicted_label"] == "sport"
    assert pd.isna(found.loc["y", "predicted_label"])


def test_a_file_of_one_unit_has_the_same_windows(model: Path, tmp_path: Path) -> None:
    texts = [f"{text} {i}" for i in range(27) for text in labelled_rows(600)["text"]]
    pq.write_table(pa.table({"text": texts}), tmp_path / "in.parquet", row_group_size=len(texts))
    distlstm.batch_predict(tmp_path / "in.parquet", model=model, output=tmp_path / "out", workers=1)
    expected = pq.ParquetFile(tmp_path / "out/in.parquet").read().drop_columns(["text"])
    assert distlstm.load_model(model).predict(texts).table.equals(expected)


def test_windows_hold_every_row_once_whatever_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pa.array([str(i) * (i % 5) for i in range(100)])
    for name, value in (("BATCH_ROWS", 7), ("WINDOW_ROWS", 20), ("WINDOW_BYTES", 50)):
        monkeypatch.setattr(in_memory, name, value)
    windows = list(in_memory._windows(texts, 3))
    assert len(windows) > 4
    assert pa.concat_arrays(windows).equals(texts)
    assert [len(window) for window in in_memory._windows(texts.slice(0, 0), 3)] == [0]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ("one text", "put a single text into a list"),
        ([1, 2], "not text"),
        (["a", 5], "no text"),
        (pd.DataFrame({"body": ["a"]}), "It has: body"),
        (pa.table({"text": [1.5]}), "not text"),
        (pa.table([["a"], ["b"]], names=["text", "text"]), "More than one column 'text'"),
        ({"text": ["a"]}, "not a dict"),
        (["\ud800"], "no text"),
    ],
)
def test_what_is_no_text_is_a_user_error(model: Path, texts: Any, message: str) -> None:
    with pytest.raises(distlstm.UserError, match=message):
        distlstm.load_model(model).predict(texts)


def test_no_rows_and_only_nulls_give_the_types_of_any_rows(model: Path) -> None:
    loaded = distlstm.load_model(model)
    schema = loaded.predict(["goal"], top_k=2).table.schema
    for texts in ([], [None], pa.array([], pa.string()), pa.nulls(3)):
        found = loaded.predict(texts, top_k=2)
        assert found.table.schema == schema
        assert len(found) == len(texts)


def test_a_model_and_its_predictions_print_well(model: Path) -> None:
    loaded = distlstm.load_model(model)
    assert "accuracy" in str(loaded)
    assert loaded.labels == ("money", "sport", "天气")
    found = loaded.predict(["goal team", None])
    lines = str(found).splitlines()
    assert lines[0].split() == ["predicted_label", "predicted_score"]
    assert lines[1].startswith("sport")
    assert found._repr_html_().count("<tr>") == 3
    assert [row["predicted_label"] for row in found] == ["sport", None]


def test_the_process_keeps_its_threads(model: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        distlstm.load_model(model).predict(["goal"])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_predicting_needs_no_ray(model: Path) -> None:
    code = (
        "import sys, distlstm; "
        f"labels = distlstm.load_model({str(model)!r}).predict(['goal team']).labels; "
        "sys.exit(labels != ['sport'] or 'ray' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_importing_the_package_imports_nothing_that_takes_long() -> None:
    heavy = ("ray", "torch", "pyarrow", "pandas", "numpy", "optuna", "rich", "click")
    code = f"import sys, distlstm; sys.exit(any(name in sys.modules for name in {heavy!r}))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
