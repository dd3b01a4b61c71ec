"""Tests of distlstm.stages.part_writer."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distlstm.data.units import Size
from distlstm.stages.prediction import windows
from distlstm.stages.prediction.part_writer import Failure, PartWriter
from distlstm.storage import LocalStorage
from tests.stages.small_model import predictor, settings, units_of


def writer(output: Path) -> PartWriter:
    return PartWriter(predictor(), LocalStorage(output), settings())


def write(path: Path, texts: list[str | None], **options: int) -> None:
    table = pa.table({"id": list(range(len(texts))), "text": pa.array(texts, pa.string())})
    pq.write_table(table, path, **options)


def test_a_file_of_several_units_gives_parts_that_are_the_file(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in/a.parquet", [f"goal {i}" for i in range(50)], row_group_size=20)
    units = units_of(tmp_path / "in", Size(7_000, 15))
    subject = writer(tmp_path / "out")
    parts = list(subject.write(units))
    assert [one[0].rows_out for one in parts if isinstance(one, tuple)] == [10, 10, 10, 10, 10]
    tables = [pq.read_table(path) for path in sorted((tmp_path / "out").iterdir())]
    assert pa.concat_tables(tables)["id"].to_pylist() == list(range(50))
    assert subject.progress.complete_rows == 50
    assert subject.progress.rows_done == pytest.approx(50)


def test_a_file_without_rows_gives_a_part_without_rows(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in/a.parquet", [])
    (part,) = writer(tmp_path / "out").write(units_of(tmp_path / "in"))
    assert isinstance(part, tuple)
    table = pq.read_table(tmp_path / "out/a.parquet")
    assert table.num_rows == 0
    assert table.column_names == ["id", "text", "predicted_label", "predicted_score"]
    assert table.schema.field("predicted_score").type == pa.float32()


@pytest.mark.parametrize("columns", [None, ("v",)])
@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["{}", "null"], ["{}", None]),
        (["[{}]", "[]"], ["[{}]", "[]"]),
        (['{"a": {}}', '{"a": null}'], ['{"a": {}}', '{"a": null}']),
        (["{}", '{"a": 1}'], [{"a": None}, {"a": 1}]),
    ],
)
def test_empty_objects_in_json_lines_come_out_though_parquet_has_none(
    tmp_path: Path, values: list[str], expected: list[object], columns: tuple[str, ...] | None
) -> None:
    (tmp_path / "in").mkdir()
    lines = [f'{{"text": "goal", "v": {value}}}' for value in values]
    (tmp_path / "in/a.jsonl").write_text("\n".join(lines))
    subject = PartWriter(predictor(), LocalStorage(tmp_path / "out"), settings(columns=columns))
    (part,) = subject.write(units_of(tmp_path / "in"))
    assert isinstance(part, tuple)
    assert pq.read_table(tmp_path / "out/a.jsonl.parquet")["v"].to_pylist() == expected


def test_a_file_that_changes_while_it_is_read_leaves_no_part(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        write(tmp_path / f"in/{name}.parquet", ["goal"])
    units = units_of(tmp_path / "in")
    os.utime(tmp_path / "in/a.parquet", ns=(0, 0))
    first, second = writer(tmp_path / "out").write(units)
    assert isinstance(first, Failure)
    assert "changed while it was read" in first.message
    assert isinstance(second, tuple)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.parquet"]


def test_a_part_that_is_there_already_is_kept(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        write(tmp_path / f"in/{name}.parquet", ["goal", "bank", None])
    units = units_of(tmp_path / "in")
    list(writer(tmp_path / "out").write(units[:1]))
    before = (tmp_path / "out/a.parquet").stat().st_mtime_ns
    written = list(writer(tmp_path / "out").write(units))
    names = [one[0].name for one in written if isinstance(one, tuple)]
    assert names == ["a.parquet", "b.parquet", "c.parquet"]
    assert (tmp_path / "out/a.parquet").stat().st_mtime_ns == before


def test_windows_never_change_what_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for name in ("a", "b", "c"):
        write(tmp_path / f"in/{name}.parquet", ["goal a", None, "bank", "goal a", name] * 4)
    units = units_of(tmp_path / "in")
    list(writer(tmp_path / "one").write(units))
    monkeypatch.setattr(windows, "WINDOW_BYTES", 1)
    list(writer(tmp_path / "many").write(units))
    for name in ("a", "b", "c"):
        one, many = (pq.read_table(tmp_path / run / f"{name}.parquet") for run in ("one", "many"))
        assert one.drop(["predicted_score"]).equals(many.drop(["predicted_score"]))
        scores = [table["predicted_score"].fill_null(-1).to_pylist() for table in (one, many)]
        assert scores[0] == pytest.approx(scores[1])
