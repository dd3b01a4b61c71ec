"""What is read is what the file holds, or the file is refused: the kinds that went wrong once."""

import bz2
import csv
import gzip
import io
import json
import lzma
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlstm.data.files import find_files
from distlstm.data.opening import UnreadableFileError
from distlstm.data.reading import read_batches, read_schema
from distlstm.errors import UserError


def read(path: Path, columns: list[str] | None = None, **options: Any) -> list[dict[str, Any]]:
    (file,) = find_files([str(path)])
    batches = list(read_batches(file, columns=columns, one_type=True, **options))
    assert len({str(batch.schema) for batch in batches}) <= 1, "one type for each column"
    return [row for batch in batches for row in batch.to_pylist()]


def written(path: Path, content: str | bytes, encoding: str = "utf-8") -> Path:
    path.write_bytes(content.encode(encoding) if isinstance(content, str) else content)
    return path


FAR = [datetime(9999, 12, 31, 23, 59, 59), None, datetime(1, 1, 1), datetime(2026, 1, 1, 1, 2, 3)]


@pytest.mark.parametrize("depth", ["flat", "list", "struct", "map"])
def test_int96_timestamps_beyond_what_nanoseconds_reach_come_out_equal(
    tmp_path: Path, depth: str
) -> None:
    values: dict[str, pa.Array] = {
        "flat": pa.array(FAR, pa.timestamp("us")),
        "list": pa.array([[t] for t in FAR], pa.list_(pa.timestamp("us"))),
        "struct": pa.array([{"t": t} for t in FAR], pa.struct([("t", pa.timestamp("us"))])),
        "map": pa.array([[("k", t)] for t in FAR], pa.map_(pa.string(), pa.timestamp("us"))),
    }
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"until": values[depth]}),
        path,
        use_deprecated_int96_timestamps=True,
        row_group_size=2,
    )
    assert [row["until"] for row in read(path)] == values[depth].to_pylist()


def test_int96_timestamps_that_nanoseconds_reach_keep_all_their_digits(tmp_path: Path) -> None:
    fine = pa.array([1, 10**18 + 7, None], pa.timestamp("ns"))
    pq.write_table(
        pa.table({"t": fine}), tmp_path / "a.parquet", use_deprecated_int96_timestamps=True
    )
    (file,) = find_files([str(tmp_path / "a.parquet")])
    (batch,) = read_batches(file)
    assert batch.column("t").equals(fine)


def test_int96_timestamps_that_no_unit_holds_are_refused_with_column_and_file(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(
        pa.table({"t": pa.array([0, 1], pa.timestamp("ns"))}),
        path,
        use_deprecated_int96_timestamps=True,
        use_dictionary=False,
        compression="none",
    )
    content = path.read_bytes()
    for before, after in ((0, 10**18 + 7), (1, 253_402_300_799 * 10**9)):  # a fine and a far one
        assert _int96(before) in content
        content = content.replace(_int96(before), _int96(after), 1)
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"Column 't' of .*a\.parquet has INT96 timestamps"):
        read(path)


def _int96(nanoseconds: int) -> bytes:
    """A time since 1970 as Parquet stores it: nanoseconds of the day, and the Julian day."""
    days, rest = divmod(nanoseconds, 86_400 * 10**9)
    return rest.to_bytes(8, "little") + (days + 2_440_588).to_bytes(4, "little")


LARGE = 2**53 + 1


@pytest.mark.parametrize("values", [[LARGE, 2.5], [2.5, LARGE], [-LARGE, None, 0.5]])
@pytest.mark.parametrize("batch_rows", [1, 100])
def test_an_integer_of_json_keeps_its_digits_beside_a_fraction(
    tmp_path: Path, values: list[Any], batch_rows: int
) -> None:
    lines = "".join(json.dumps({"text": "x", "n": value}) + "\n" for value in values)
    path = written(tmp_path / "a.jsonl", lines)
    found = [row["n"] for row in read(path, batch_rows=batch_rows)]
    assert [None if text is None else json.loads(text) for text in found] == values
    nested = "".join(json.dumps({"n": [value]}) + "\n" for value in values if value is not None)
    found = [row["n"] for row in read(written(tmp_path / "b.jsonl", nested), batch_rows=batch_rows)]
    assert [json.loads(text) for text in found] == [[v] for v in values if v is not None]


def test_small_integers_beside_fractions_are_floats_and_large_ones_alone_integers(
    tmp_path: Path,
) -> None:
    path = written(tmp_path / "a.jsonl", '{"a": 1, "b": 9007199254740993}\n{"a": 0.5, "b": 1}\n')
    assert read(path) == [{"a": 1.0, "b": LARGE}, {"a": 0.5, "b": 1}]


def test_a_key_that_comes_late_is_a_column_of_every_row(tmp_path: Path) -> None:
    lines = '{"id": 1}\n' * 20_000 + '{"id": 2, "text": "late"}\n'
    path = written(tmp_path / "a.jsonl", lines)
    (file,) = find_files([str(path)])
    assert read_schema(file).names == ["id", "text"]
    rows = read(path)
    assert (rows[0], rows[-1]) == ({"id": 1, "text": None}, {"id": 2, "text": "late"})
    assert [row["text"] for row in read(path, ["text"])] == [None] * 20_000 + ["late"]


def test_what_is_no_number_is_null(tmp_path: Path) -> None:
    lines = '{"n": NaN, "text": "a"}\n{"n": 1, "text": NaN}\n{"n": -Infinity, "text": "b"}\n'
    assert read(written(tmp_path / "a.jsonl", lines)) == [
        {"n": None, "text": "a"},
        {"n": 1, "text": None},
        {"n": None, "text": "b"},
    ]


ROWS = [{"text": "Who wrote Hamlet ?", "n": 1}, {"text": 'wo [ist] {Nepal}, "hm" ?', "n": 2}]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize(
    "form",
    [
        lambda rows: "\n".join(map(json.dumps, rows)),
        lambda rows: "\n\n" + "\r\n".join(map(json.dumps, rows)) + "\n",
        lambda rows: json.dumps(rows),
        lambda rows: json.dumps(rows, indent=2),
        lambda rows: "[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n",
        lambda rows: "\n".join(json.dumps(row, indent=4) for row in rows),
    ],
    ids=["lines", "blank lines", "array", "indented array", "a line each", "indented objects"],
)
def test_json_is_read_in_every_form_and_encoding(tmp_path: Path, form: Any, encoding: str) -> None:
    assert read(written(tmp_path / "a.json", form(ROWS), encoding)) == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[\n{"a": 1},\n{"a": \n', "line 3, is not JSON"),
        ('{"a": 1}\n{"a": oops}\n', "line 2, is not JSON"),
        ("[1, 2]\n", "not a JSON object"),
    ],
)
def test_json_that_is_damaged_is_named_with_its_line(
    tmp_path: Path, content: str, message: str
) -> None:
    with pytest.raises(UnreadableFileError, match=message):
        read(written(tmp_path / "a.json", content))


def test_an_empty_line_of_a_csv_file_of_one_column_is_a_row(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", 'text\nWho ?\n\n""\nWhere ?\n')
    assert [row["text"] for row in read(path)] == ["Who ?", None, "", "Where ?"]
    two = written(tmp_path / "b.csv", "id,text\n1,a\n\n,b\n")
    assert read(two) == [{"id": "1", "text": "a"}, {"id": None, "text": "b"}]


@pytest.mark.parametrize(
    "texts",
    [
        ['"Who wrote Hamlet ?', "Where is Nepal ?", '"What is a quasar ?', "How many miles ?"],
        ['"Who wrote Hamlet ?', "Where is Nepal ?"],
        ['"Hamlet" was written by who ?', 'Where is "Nepal" ?'],
    ],
)
def test_a_tsv_file_without_quoting_loses_no_row_and_no_quote(
    tmp_path: Path, texts: list[str]
) -> None:
    content = "id\ttext\n" + "".join(f"{i}\t{text}\n" for i, text in enumerate(texts))
    assert [row["text"] for row in read(written(tmp_path / "a.tsv", content))] == texts


def test_a_tsv_file_with_quoting_is_read_as_such(tmp_path: Path) -> None:
    content = 'id\ttext\n1\t"two\nlines, ""quoted"" and a\ttab"\n'
    (row,) = read(written(tmp_path / "a.tsv", content))
    assert row["text"] == 'two\nlines, "quoted" and a\ttab'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('id,text\n1,"a"\n2,"never closed\n3,b\n', r"a\.csv, line 3: a quote opens here"),
        ('id,text\n1,"he said \\"who ?\\" today"\n', r"a\.csv, line 2: text follows .* backslash"),
        ('id,text\n1,"he said \\"who, is it ?\\" today"\n', "line 2: text follows"),
    ],
)
def test_a_csv_file_whose_quotes_do_not_pair_up_is_refused_with_the_line(
    tmp_path: Path, content: str, message: str
) -> None:
    with pytest.raises(UnreadableFileError, match=message):
        read(written(tmp_path / "a.csv", content))


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_is_read_by_its_byte_order_mark_and_its_delimiter(
    tmp_path: Path, encoding: str, delimiter: str
) -> None:
    content = f'text{delimiter}label\n"Wo {delimiter} ?"{delimiter}天气\n'
    expected = [{"text": f"Wo {delimiter} ?", "label": "天气"}]
    assert read(written(tmp_path / "a.csv", content, encoding)) == expected


_CELL = st.text(st.sampled_from('ab ",\n\t;\\天'), max_size=6)


@given(st.lists(st.tuples(_CELL, _CELL), min_size=1, max_size=6), st.sampled_from([",", "\t"]))
def test_whatever_pythons_writer_writes_comes_out_equal(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], delimiter: str
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([("first", "second"), *rows])
    suffix = "csv" if delimiter == "," else "tsv"
    path = written(tmp_path_factory.mktemp("csv") / f"a.{suffix}", text.getvalue())
    expected = [tuple(cell or None for cell in row) for row in rows]  # it does not quote empty ones
    assert [tuple(row.values()) for row in read(path)] == expected


VALUES = ["plain", "a/b c%d=e", "天气", None, "100%", ""]


@pytest.mark.parametrize("writer", ["arrow", "duckdb"])
def test_hive_partitions_come_out_as_they_were_written(tmp_path: Path, writer: str) -> None:
    table = pa.table({"text": [str(i) for i in range(5)], "topic": VALUES[:5]})
    partitioning = ds.partitioning(pa.schema([("topic", pa.string())]), flavor="hive")
    if writer == "arrow":
        ds.write_dataset(table, tmp_path / "out", format="parquet", partitioning=partitioning)
    else:
        with duckdb.connect() as connection:
            connection.register("rows", table)
            connection.execute(
                f"COPY (FROM rows) TO '{tmp_path / 'out'}' (FORMAT parquet, PARTITION_BY (topic))"
            )
    files = find_files([str(tmp_path / "out")])
    rows = [
        row
        for file in files
        for batch in read_batches(file, columns=["text", "topic"])
        for row in batch.to_pylist()
    ]
    assert sorted(rows, key=lambda row: row["text"]) == table.to_pylist()


@pytest.mark.parametrize("suffix", ["bz2", "xz", "gz"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_compressed_files_are_read(tmp_path: Path, suffix: str, kind: str) -> None:
    content = (
        '{"text": "Who ?", "n": "1"}\n' * 3 if kind == "jsonl" else "text,n\n" + "Who ?,1\n" * 3
    )
    module: Any = {"bz2": bz2, "xz": lzma, "gz": gzip}[suffix]
    path = written(tmp_path / f"a.{kind}.{suffix}", module.compress(content.encode()))
    assert read(path) == [{"text": "Who ?", "n": "1"}] * 3
    damaged = written(tmp_path / f"b.{kind}.{suffix}", path.read_bytes()[:-7])
    with pytest.raises(UnreadableFileError, match="Cannot read"):
        read(damaged)


def test_parquet_in_gzip_is_refused_with_what_to_do(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"]}), tmp_path / "a.parquet")
    path = written(tmp_path / "a.parquet.gz", gzip.compress((tmp_path / "a.parquet").read_bytes()))
    with pytest.raises(UnreadableFileError, match="decompress the file first"):
        read(path)


def test_a_csv_cell_that_is_not_utf8_comes_through_beside_a_byte_order_mark(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", b"\xef\xbb\xbftext,n\ncaf\xe9,1\nplain,2\n")
    assert read(path) == [{"text": b"caf\xe9", "n": "1"}, {"text": b"plain", "n": "2"}]
