"""Tests of distlstm.data.reading."""

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distlstm.data.files import find_files
from distlstm.data.opening import UnreadableFileError
from distlstm.data.reading import read_batches, read_schema
from distlstm.errors import UserError
from distlstm.text.columns import read_texts


def read(path: Path, columns: list[str] | None = None) -> list[dict[str, object]]:
    (file,) = find_files([str(path)])
    return [row for batch in read_batches(file, columns=columns) for row in batch.to_pylist()]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def test_csv_values_stay_as_they_are(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'id,text\n007,"two\nlines, ""quoted"""\n8,\n')
    expected = [{"id": "007", "text": 'two\nlines, "quoted"'}, {"id": "8", "text": None}]
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


def batches(
    path: Path, columns: list[str] | None = None, *, batch_rows: int = 16_384
) -> list[pa.RecordBatch]:
    (file,) = find_files([str(path)])
    return list(read_batches(file, columns=columns, batch_rows=batch_rows))


def written_as(directory: Path, suffix: str, rows: list[dict[str, str]]) -> Path:
    """The same rows in any of the formats, compressed if the suffix says so."""
    path, (kind, *compression) = directory / f"data{suffix}", suffix[1:].split(".")
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=3)
        return path
    separator = "\t" if kind == "tsv" else ","
    lines = [separator.join(rows[0]), *(separator.join(row.values()) for row in rows)]
    if kind == "jsonl":
        lines = [json.dumps(row, ensure_ascii=len(row["text"]) % 2 == 0) for row in rows]
    content = "".join(f"{line}\n" for line in lines).encode()
    if compression == ["gz"]:
        content = gzip.compress(content)
    elif compression == ["zst"]:
        content = pa.compress(content, "zstd", asbytes=True)
    return write(path, content)


ROWS = [
    {"id": f"{i:03}", "text": "好" * i + " x", "date": f"2020-01-{i + 1:02}"} for i in range(10)
]
SUFFIXES = [".parquet", ".csv", ".tsv", ".jsonl", ".csv.gz", ".tsv.zst", ".jsonl.gz", ".jsonl.zst"]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("batch_rows", [3, 16_384])
def test_the_same_rows_come_from_every_format_in_batches_of_any_size(
    tmp_path: Path, suffix: str, batch_rows: int
) -> None:
    path = written_as(tmp_path, suffix, ROWS)
    found = batches(path, batch_rows=batch_rows)
    assert [row for batch in found for row in batch.to_pylist()] == ROWS
    assert {kind for batch in found for kind in batch.schema.types} == {pa.string()}
    assert max(batch.num_rows for batch in found) <= batch_rows
    chosen = batches(path, ["text", "id"], batch_rows=batch_rows)
    assert [list(row.values()) for batch in chosen for row in batch.to_pylist()] == [
        [row["text"], row["id"]] for row in ROWS
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_names_its_columns_and_those_of_its_directories(
    tmp_path: Path, suffix: str
) -> None:
    (tmp_path / "lang=zh" / "id=7").mkdir(parents=True)
    written_as(tmp_path / "lang=zh" / "id=7", suffix, ROWS)
    (file,) = find_files([str(tmp_path)])
    assert read_schema(file).names == ["id", "text", "date", "lang"]
    (batch,) = read_batches(file, columns=["lang", "id"])
    assert batch.to_pylist() == [{"lang": "zh", "id": row["id"]} for row in ROWS]
    alone = [row for batch in read_batches(file, columns=["lang"]) for row in batch.to_pylist()]
    assert alone == [{"lang": "zh"}] * len(ROWS)
    with pytest.raises(UserError, match=r"'label'.*It has: 'id', 'text', 'date', 'lang'"):
        next(read_batches(file, columns=["text", "label"]))


@pytest.mark.parametrize("row_groups", [[0], [3], [1, 2], [2, 0], []])
def test_only_the_row_groups_asked_for_are_read(tmp_path: Path, row_groups: list[int]) -> None:
    (file,) = find_files([str(written_as(tmp_path, ".parquet", ROWS))])
    found = [
        row
        for batch in read_batches(file, columns=["id"], row_groups=row_groups)
        for row in batch.to_pylist()
    ]
    groups = [ROWS[start : start + 3] for start in range(0, 10, 3)]
    assert found == [{"id": row["id"]} for group in row_groups for row in groups[group]]


def test_only_an_empty_value_without_quotes_is_null_in_csv(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", 'text,label\nNA,null\nNaN,\n"",TRUE\n')
    assert [list(row.values()) for row in read(path)] == [
        ["NA", "null"],
        ["NaN", None],
        ["", "TRUE"],
    ]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_csv_of_windows_is_read_as_that_of_unix(tmp_path: Path, newline: str) -> None:
    lines = ["\ufefftext,label", '"two', 'lines",a', "你,b", ""]
    path = write(tmp_path / "a.csv", newline.join(lines))
    expected = [{"text": f"two{newline}lines", "label": "a"}, {"text": "你", "label": "b"}]
    assert read(path) == expected


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_json_lines_of_windows_and_blank_lines_are_read(tmp_path: Path, newline: str) -> None:
    lines = ["", '{"text": "a"}', "  ", '{"text": "b"}', "", '{"text": "c"}']
    path = write(tmp_path / "a.jsonl", newline.join(lines))
    assert read(path) == [{"text": text} for text in "abc"]


@pytest.mark.parametrize("newline", ["", "\n"])
@pytest.mark.parametrize("columns", [["label"], None])
def test_a_csv_of_a_header_alone_has_columns_and_no_rows(
    tmp_path: Path, newline: str, columns: list[str] | None
) -> None:
    path = write(tmp_path / "a.csv", f"text,label{newline}")
    assert read(path, columns) == []
    assert read_schema(find_files([str(path)])[0]).names == ["text", "label"]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_a_text_of_several_megabytes_is_read(tmp_path: Path, suffix: str) -> None:
    text = "word " * 600_000
    rows = [{"text": "short", "label": "a"}, {"text": text, "label": "b"}]
    assert read(written_as(tmp_path, suffix, rows)) == rows


def test_a_row_too_large_to_read_is_answered_with_the_likely_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distlstm.data.csv_rows.CSV_BLOCK", 2**16)
    path = write(tmp_path / "a.csv", 'text\n"' + "never closed\n" * 2**14)
    with pytest.raises(UnreadableFileError, match="a quote opens here and is never closed, or"):
        read(path)


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['{"v": 1}', '{"v": "x"}'], ["1", "x"]),
        (['{"v": true}', '{"v": 1}'], ["true", "1"]),
        (['{"v": 1}', '{"v": 2.5}'], [1.0, 2.5]),
        (['{"v": 1}', '{"v": 100000000000000000000}'], ["1", "100000000000000000000"]),
        (['{"v": null}', "{}", '{"v": 3}'], [None, None, 3]),
        (['{"v": {"a": 1}}', '{"v": {"b": 2}}'], [{"a": 1, "b": None}, {"a": None, "b": 2}]),
        (['{"v": {"a": 1}}', '{"v": "x"}'], ['{"a": 1}', "x"]),
        (['{"v": [1, 2]}', '{"v": []}'], [[1, 2], []]),
        (['{"v": [1]}', '{"v": {"a": 1}}'], ["[1]", '{"a": 1}']),
        (['{"v": "2020-01-01"}', '{"v": "2020-01-01T00:00:00Z"}'], None),
        (['{"v": "1"}', '{"v": "007"}'], None),
    ],
)
@pytest.mark.parametrize("batch_rows", [1, 100])
def test_a_json_column_has_one_type_in_all_batches(
    tmp_path: Path, lines: list[str], expected: list[object] | None, batch_rows: int
) -> None:
    path = write(tmp_path / "a.jsonl", "\n".join(['{"other": 0, "v": null}', *lines]))
    found = batches(path, batch_rows=batch_rows)
    expected = [json.loads(line)["v"] for line in lines] if expected is None else expected
    assert [v for batch in found for v in batch.column("v").to_pylist()] == [None, *expected]
    assert len({batch.schema for batch in found}) == 1


@pytest.mark.parametrize("columns", [["v"], None])
@pytest.mark.parametrize("batch_rows", [1, 100])
def test_no_row_is_lost_because_it_has_none_of_the_columns(
    tmp_path: Path, columns: list[str] | None, batch_rows: int
) -> None:
    path = write(tmp_path / "a.jsonl", '{"v": "x"}\n{"w": 1}\n{}\n{"v": "y"}\n')
    found = batches(path, columns, batch_rows=batch_rows)
    assert sum(batch.num_rows for batch in found) == 4


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"100000000000000000000", "100000000000000000000"),
        (b'"half an emoji \\ud83d"', b"half an emoji \xed\xa0\xbd"),
        (b'{"a": "half an emoji \\ud83d"}', '{"a": "half an emoji \\ud83d"}'),
        (b"1e999", float("inf")),
    ],
)
@pytest.mark.parametrize("columns", [["text", "v"], None])
def test_a_json_value_that_arrow_has_no_type_for_is_kept_as_text(
    tmp_path: Path, value: bytes, expected: object, columns: list[str] | None
) -> None:
    path = write(tmp_path / "a.jsonl", b'{"text": "x", "v": ' + value + b"}\n")
    assert read(path, columns) == [{"text": "x", "v": expected}]


def test_half_a_surrogate_pair_is_no_text_to_classify(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.jsonl", '{"text": "cut \\ud83d"}\n{"text": "whole \\ud83d\\ude00"}\n'
    )
    (batch,) = batches(path, ["text"])
    assert read_texts(batch.column(0)).texts.to_pylist() == [None, "whole 😀"]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("columns", [["text"], None])
def test_bytes_that_are_not_utf8_may_stand_beside_numbers(
    tmp_path: Path, order: int, columns: list[str] | None
) -> None:
    lines = [b'{"text": 5}', b'{"text": "caf\xe9"}', b'{"text": "ok"}'][::order]
    path = write(tmp_path / "a.jsonl", b"\n".join(lines))
    (batch,) = batches(path, columns)
    assert read_texts(batch.column(0)).texts.to_pylist() == ["5", None, "ok"][::order]


def test_a_column_whose_name_is_not_utf8_is_in_the_way_of_whole_rows_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", b'{"caf\xe9": 1, "text": "x"}\n')
    assert read(path, ["text"]) == [{"text": "x"}]
    with pytest.raises(UnreadableFileError, match=r"column name 'caf\\udce9' is not UTF-8"):
        read(path)


def test_json_nested_deeper_than_any_reader_is_an_unreadable_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "x"}\n' + "[" * 100_000)
    with pytest.raises(UserError, match="line 2"):
        read(path)


def test_a_line_that_is_no_json_is_named_in_compressed_files_too(tmp_path: Path) -> None:
    lines = ['{"text": "x"}'] * 20_000 + ["", "{'text': 'y'}"]
    path = write(tmp_path / "a.jsonl.gz", gzip.compress("\n".join(lines).encode()))
    with pytest.raises(UserError, match="line 20002, is not JSON"):
        read(path, ["text"])


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
@pytest.mark.parametrize("batch_rows", [1, 100])
def test_of_a_column_with_broken_bytes_only_the_broken_texts_are_lost(
    tmp_path: Path, suffix: str, batch_rows: int
) -> None:
    path = written_as(tmp_path, suffix, [{"text": text, "n": "1"} for text in ("é", "CUT", "你")])
    write(path, path.read_bytes().replace(b"CUT", b"\xe4\xbd"))
    whole = batches(path, batch_rows=batch_rows)
    assert {batch.schema.field("text").type for batch in whole} == {pa.binary()}
    for found in (whole, batches(path, ["text"], batch_rows=batch_rows)):
        texts = [read_texts(batch.column("text")).texts for batch in found]
        assert pa.concat_arrays(texts).to_pylist() == ["é", None, "你"]


def test_parquet_strings_that_are_not_utf8_are_read(tmp_path: Path) -> None:
    offsets = pa.py_buffer(np.array([0, 1, 2], np.int32))
    broken = pa.Array.from_buffers(pa.string(), 2, [None, offsets, pa.py_buffer(b"\xffa")])
    pq.write_table(pa.table({"text": broken}), tmp_path / "a.parquet")
    (batch,) = batches(tmp_path / "a.parquet", ["text"])
    assert read_texts(batch.column(0)).texts.to_pylist() == [None, "a"]


def test_parquet_columns_keep_their_types(tmp_path: Path) -> None:
    columns = {
        "text": pa.array(["a", None]).dictionary_encode(),
        "large": pa.array(["a", "b"], pa.large_string()),
        "when": pa.array([0, 1], pa.timestamp("us", tz="UTC")),
        "list": pa.array([[1], None], pa.list_(pa.int8())),
        "struct": pa.array([{"a": 1}, None]),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    (batch,) = batches(tmp_path / "a.parquet")
    assert dict(zip(batch.schema.names, batch.columns, strict=True)) == columns


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", b'{"text": "x"}\n'),
        ("a.parquet", b"PAR1" + b"x" * 100),
        ("a.jsonl", b"PAR1....PAR1"),
        ("a.jsonl", b"text,label\na,b\n"),
        ("a.csv", gzip.compress(b"text\nx\n" * 99, mtime=0)),
        ("a.csv.gz", b"text\nx\n"),
        ("a.csv.zst", gzip.compress(b"text\nx\n", mtime=0)),
        ("a.csv.gz", gzip.compress(b"", mtime=0)),
        ("a.csv.gz", gzip.compress(bytes(range(32, 127)) * 9, mtime=0)[:-20]),
        ("a.jsonl.gz", gzip.compress(b'{"text": "x"}\n' * 9, mtime=0)[:-10]),
        ("a.tsv", b""),
        ("a.csv.gz", b""),
        ("a.csv", b"text,label\na,b\nc\n"),
        ("a.csv", b"caf\xe9,text\na,b\n"),
        ("a.csv", b"x" * 200_000),
    ],
)
@pytest.mark.parametrize("columns", [["text"], None])
def test_a_file_that_is_broken_is_a_user_error_that_names_it(
    tmp_path: Path, name: str, content: bytes, columns: list[str] | None
) -> None:
    with pytest.raises(UnreadableFileError) as raised:
        read(write(tmp_path / name, content), columns)
    assert str(tmp_path / name) in str(raised.value)
    assert "\n" not in str(raised.value)


def test_json_named_csv_is_answered_with_what_it_took_for_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", '{"text":"x"}\n{"text":"y"}\n')
    with pytest.raises(UserError, match=r"It has: '\{\"text\":\"x\"\}'"):
        read(path, ["text"])


@pytest.mark.parametrize("content", ["", "\n\n"])
def test_json_lines_of_nothing_have_no_column(tmp_path: Path, content: str) -> None:
    path = write(tmp_path / "a.jsonl", content)
    assert read(path) == []
    with pytest.raises(UserError):
        read(path, ["text"])


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_that_is_there_twice_cannot_be_asked_for(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}", "text,v,v\nx,1,2\n")
    if suffix == ".parquet":
        pq.write_table(pa.table([["x"], ["1"], ["2"]], names=["text", "v", "v"]), path)
    assert read(path, ["text"]) == [{"text": "x"}]
    with pytest.raises(UserError, match="more than one column 'v'"):
        read(path, ["v"])


def test_csv_rows_with_a_column_twice_cannot_be_read_whole(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="more than one column 'v'"):
        read(write(tmp_path / "a.csv", "text,v,v\nx,1,2\n"))


def test_a_file_that_has_gone_since_it_was_found_is_a_user_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text\nx\n")
    (file,) = find_files([str(path)])
    path.unlink()
    with pytest.raises(UserError, match=r"a\.csv"):
        list(read_batches(file))
