"""Tests of the names of parts, and of what their footers tell."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distlstm.data.files import SourceFile
from distlstm.data.units import Unit
from distlstm.stages.prediction.footers import read_part, read_parts
from distlstm.stages.prediction.part_writer import PartWriter
from distlstm.stages.prediction.parts import Part, Sums, part_name
from distlstm.storage import LocalStorage
from tests.stages.small_model import SETTINGS, predictor, settings, units_of

Made = tuple[Path, Unit, tuple[Part, Sums]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A part, the unit that it is of, and what its footer should say."""
    root = tmp_path_factory.mktemp("parts")
    (root / "in").mkdir()
    rows = {"text": ["goal", None, "bank"] * 200, "list": [[1], None, [2, 3]] * 200}
    pq.write_table(pa.table(rows), root / "in/a.parquet")
    (unit,) = units_of(root / "in")
    (written,) = PartWriter(predictor(), LocalStorage(root / "out"), SETTINGS).write([unit])
    assert isinstance(written, tuple)
    return root / "out/a.parquet", unit, written


@pytest.mark.parametrize(
    ("relative", "format_", "index", "num_units", "expected"),
    [
        ("2026/a.parquet", "parquet", 0, 1, "2026/a.parquet"),
        ("2026/a.parquet", "parquet", 3, 8, "2026/a-00003-of-00008.parquet"),
        ("a.pq", "parquet", 0, 1, "a.parquet"),
        ("day=1/b.csv.gz", "csv", 0, 1, "day=1/b.csv.gz.parquet"),
        ("b.v2.jsonl", "jsonl", 0, 1, "b.v2.jsonl.parquet"),
        ("b.v2.parquet", "parquet", 0, 1, "b.v2.parquet"),
    ],
)
def test_a_part_lies_where_its_input_does(
    relative: str, format_: str, index: int, num_units: int, expected: str
) -> None:
    file = SourceFile(
        path=f"/{relative}", relative=relative, size=1, modified=1, format=format_, compression=None
    )
    assert part_name(Unit(file=file, index=index, num_units=num_units)) == expected


def test_a_whole_part_is_read_back_from_its_footer(made: Made) -> None:
    path, unit, written = made
    part, sums = written
    assert read_part(LocalStorage(path.parent), path.name) == written
    names = ["absent.parquet", "a.parquet"]
    assert list(read_parts(LocalStorage(path.parent), names)) == [written]
    assert part.matches(unit, SETTINGS)
    assert sum(sums.label_counts.values()) == sum(sums.score_histogram) == 400
    assert all(sums.label_counts.values())


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.999])
def test_a_part_that_lost_bytes_at_its_end_is_none(
    made: Made, tmp_path: Path, share: float
) -> None:
    content = made[0].read_bytes()
    (tmp_path / "a.parquet").write_bytes(content[: int(share * len(content))])
    assert read_part(LocalStorage(tmp_path), "a.parquet") is None


@pytest.mark.parametrize("cut", [(4, 5), (100, 400), (4, -2_500)])
@pytest.mark.parametrize("twice", [False, True])
def test_a_part_that_lost_or_gained_bytes_before_its_footer_is_none(
    made: Made, tmp_path: Path, cut: tuple[int, int], twice: bool
) -> None:
    content = made[0].read_bytes()
    data = len(content) - 8 - pq.read_metadata(made[0]).serialized_size
    start, end = cut[0], min(cut[1], data) if cut[1] > 0 else data
    changed = content[:end] + content[start:] if twice else content[:start] + content[end:]
    assert len(changed) != len(content)
    (tmp_path / "a.parquet").write_bytes(changed)
    assert pq.read_metadata(tmp_path / "a.parquet").num_rows == 600
    assert read_part(LocalStorage(tmp_path), "a.parquet") is None


def test_a_file_that_is_no_part_is_none(made: Made, tmp_path: Path) -> None:
    (tmp_path / "directory.parquet").mkdir()
    fewer = pq.ParquetFile(made[0]).read().slice(1)  # with the metadata of the whole
    assert b"distlstm" in fewer.schema.metadata
    pq.write_table(fewer, tmp_path / "fewer rows.parquet")
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "other.parquet")
    for i, metadata in enumerate((b"[]", b"{}", b"not JSON", b'{"name": "a", "more": 1}')):
        table = pa.table({"text": ["a"]}).replace_schema_metadata({b"distlstm": metadata})
        pq.write_table(table, tmp_path / f"{i}.parquet")
    footer = json.loads(pq.read_metadata(made[0]).metadata[b"distlstm"])
    for changes in ({"score_histogram": [1]}, {"label_counts": ["sport"]}, {"rows_out": 1, "x": 2}):
        text = json.dumps(footer | {"rows_out": 1} | changes)
        table = pa.table({"text": ["a"]}).replace_schema_metadata({b"distlstm": text.encode()})
        pq.write_table(table, tmp_path / f"{sorted(changes)[0]}.parquet")
    names = [path.name for path in tmp_path.iterdir()]
    assert len(names) == 10
    assert not list(read_parts(LocalStorage(tmp_path), [*names, "absent.parquet"]))


def test_a_part_is_that_of_its_unit_under_its_settings_only(made: Made, tmp_path: Path) -> None:
    _, unit, (part, _) = made
    for changes in ({"size": 1}, {"modified": 1}, {"path": "/elsewhere/a.parquet"}):
        assert not part.matches(replace(unit, file=replace(unit.file, **changes)), SETTINGS)
    assert not part.matches(replace(unit, row_groups=(0,)), SETTINGS)
    assert not part.matches(replace(unit, row_groups=(0,), rows=(0, 5)), SETTINGS)
    for other in ({"model": "another"}, {"top_k": 1}, {"min_score": 0.5}, {"columns": ("text",)}):
        assert not part.matches(unit, settings(**other))
    shutil.copy(unit.file.path, tmp_path / "a.parquet")
    assert not part.matches(units_of(tmp_path)[0], SETTINGS)
