"""Tests of finding, reading and cutting files."""

import gzip
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distlstm.data.files import find_files
from distlstm.data.reading import read_batches
from distlstm.data.units import cut_into_units, group_small
from distlstm.errors import UserError


def read(path: Path, columns: list[str] | None = None) -> list[dict[str, object]]:
    (file,) = find_files([str(path)])
    return [row for batch in read_batches(file, columns=columns) for row in batch.to_pylist()]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_csv_values_stay_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'id,text\n007,"two\nlines, ""quoted"""\n8,\n')
    expected = [{"id": "007", "text": 'two\nlines, "quoted"'}, {"id": "8", "text": ""}]
    assert read(path) == expected


def test_json_lines_keep_texts_and_mix_types_as_json(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl",
        '{"text": "007", "n": 1, "date": "2020-01-01"}\n\n{"text": 5, "n": 2.5}\n',
    )
    assert read(path) == [
        {"text": "007", "n": 1.0, "date": "2020-01-01"},
        {"text": "5", "n": 2.5, "date": None},
    ]


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz", "a.csv.zst", "a.jsonl.zst", "a.tsv"])
def test_compressed_and_tab_separated_files_are_read(tmp_path: Path, name: str) -> None:
    content = b'{"text": "x"}\n' if "json" in name else b"text\nx\n"
    if name.endswith(".gz"):
        content = gzip.compress(content)
    elif name.endswith(".zst"):
        content = pa.compress(content, "zstd", asbytes=True)
    assert read(write(tmp_path / name, content)) == [{"text": "x"}]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.parquet", b"", "empty"),
        ("a.csv", b"", "empty"),
        ("a.parquet", b"text,label\na,b\n", "Cannot read"),
        ("a.csv", b"PAR1....", "its content is Parquet"),
        ("a.jsonl", b'{"text": "x"}\n{"text": \n', "line 2"),
        ("a.jsonl", b"[1]\n", "not a JSON object"),
    ],
)
def test_a_file_that_is_not_what_its_suffix_says_is_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = write(tmp_path / name, content)
    with pytest.raises(UserError, match=message) as raised:
        read(path)
    assert name in str(raised.value)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_bytes_that_are_not_utf8_come_as_binary(tmp_path: Path, name: str) -> None:
    content = b'{"text":"caf\xe9"}\n' if "json" in name else b"text\ncaf\xe9\n"
    assert read(write(tmp_path / name, content), ["text"]) == [{"text": b"caf\xe9"}]


def test_a_column_that_is_missing_is_answered_with_those_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"body": ["x"], "label": ["y"]}), path)
    with pytest.raises(UserError, match="It has: body, label"):
        read(path, ["text"])


def test_a_csv_with_only_a_header_has_columns_and_no_rows(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.csv", "text,label\n"), ["label"]) == []


def test_directories_globs_uris_and_hidden_names(tmp_path: Path) -> None:
    for name in ("a.csv", "x/b.csv", "x/k=1/c.csv", "_tmp/d.csv", ".e.csv", "_SUCCESS", "n.txt"):
        write(tmp_path / name, "text\nx\n")

    def found(*sources: str) -> list[str]:
        return [Path(f.path.removeprefix("file://")).name for f in find_files(sources)]

    assert found(str(tmp_path)) == ["a.csv", "b.csv", "c.csv"]
    assert found(f"{tmp_path}/*.csv") == ["a.csv"]
    assert found(f"{tmp_path}/**/[bc].csv") == ["b.csv", "c.csv"]
    assert found(f"file://{tmp_path}/a.csv") == ["a.csv"]
    assert found(str(tmp_path / "a.csv"), str(tmp_path)) == ["a.csv", "b.csv", "c.csv"]
    assert read(tmp_path / "x/k=1/c.csv", ["text"]) == [{"text": "x"}]
    (file,) = find_files([f"{tmp_path}/x/k=*/c.csv"])
    assert next(iter(read_batches(file, columns=["k"]))).to_pylist() == [{"k": "1"}]


@pytest.mark.parametrize("name", ["missing", "n.txt", "*.parquet"])
def test_what_is_not_there_is_a_user_error(tmp_path: Path, name: str) -> None:
    write(tmp_path / "n.txt", "x")
    with pytest.raises(UserError):
        find_files([str(tmp_path / name)])


def test_a_large_file_is_cut_at_row_groups_each_once(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"text": [f"row {i}" for i in range(1000)]}), path, row_group_size=100)
    files = find_files([str(path)])
    units = cut_into_units(files, unit_bytes=path.stat().st_size // 4)
    assert 2 < len(units) <= 5
    assert [g for unit in units for g in unit.row_groups or ()] == list(range(10))
    rows = [
        row["text"]
        for unit in units
        for batch in read_batches(unit.file, row_groups=unit.row_groups, batch_rows=7)
        for row in batch.to_pylist()
    ]
    assert rows == [f"row {i}" for i in range(1000)]


def test_many_small_files_are_bundled(tmp_path: Path) -> None:
    for i in range(50):
        write(tmp_path / f"{i:02}.csv", "text\nx\n")
    units = cut_into_units(find_files([str(tmp_path)]))
    bundles = group_small(units, num_groups=4)
    assert 4 <= len(bundles) <= 8
    assert [unit for bundle in bundles for unit in bundle] == units
