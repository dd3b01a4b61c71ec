"""Random tables, as several programs write them: every value that is read is the one written."""

import csv
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import duckdb
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from distlstm.data.files import find_files
from distlstm.data.reading import read_batches
from distlstm.errors import UserError
from distlstm.reader_options import ReaderOptions
from tests.tables import LEAF_TYPES, TEXT, plain, tables, types

FEW = settings(max_examples=60, deadline=None)


def read(path: Path, **options: Any) -> pa.Table:
    (file,) = find_files([str(path)], ReaderOptions(**options))
    return pa.Table.from_batches(list(read_batches(file, one_type=True)))


def again(path: Path) -> Path:
    """What is read from a Parquet file, as another; where Arrow cannot read it, nor can we."""
    try:
        pq.read_table(path)
    except pa.ArrowException:
        with pytest.raises(UserError):
            read(path)
        reject()
    written = path.with_name("again.parquet")
    pq.write_table(read(path), written)
    return written


def scratch() -> Any:
    return tempfile.TemporaryDirectory()


@FEW
@given(tables(), st.sampled_from(["1.0", "2.6"]), st.booleans(), st.booleans())
def test_what_arrow_writes_to_parquet_is_read_value_by_value(
    table: pa.Table, version: str, use_dictionary: bool, store_schema: bool
) -> None:
    with scratch() as directory:
        path = Path(directory, "a.parquet")
        options = {"use_dictionary": use_dictionary, "store_schema": store_schema}
        try:
            pq.write_table(table, path, version=version, row_group_size=2, **options)
        except pa.ArrowNotImplementedError:
            reject()  # a view within a fixed-size list
        found = read(path)
        assert found.schema.equals(pq.read_schema(path).remove_metadata())
        assert plain(found) == plain(pq.read_table(path))
        if store_schema and version == "2.6":
            assert plain(found) == plain(table)


@pytest.mark.parametrize("kind", LEAF_TYPES, ids=str)
def test_every_type_that_parquet_holds_is_read(kind: pa.DataType) -> None:
    @settings(max_examples=5, deadline=None)
    @given(tables(st.just(kind)))
    def check(table: pa.Table) -> None:
        with scratch() as directory:
            path = Path(directory, "a.parquet")
            pq.write_table(table, path)
            assert plain(read(path)) == plain(table)

    check()


_DUCKDB_TYPES = types.filter(lambda kind: not _has(kind, _UNKNOWN_TO_DUCKDB))
_POLARS_TYPES = types.filter(lambda kind: not _has(kind, _UNKNOWN_TO_POLARS))
_UNKNOWN_TO_DUCKDB = ("halffloat", "decimal256", "null", "duration", "fixed_size_binary", "date64")
_UNKNOWN_TO_POLARS = ("decimal", "map", "time32", "null", "fixed_size_binary", "halffloat")


def _has(kind: pa.DataType, names: tuple[str, ...]) -> bool:
    return any(name in str(kind) for name in names)


@FEW
@given(tables(_DUCKDB_TYPES))
def test_what_duckdb_writes_to_parquet_is_read_value_by_value(table: pa.Table) -> None:
    with scratch() as directory, duckdb.connect() as connection:
        path = Path(directory, "a.parquet")
        connection.register("rows", table)
        connection.execute(f"COPY (SELECT * FROM rows) TO '{path}' (FORMAT parquet)")
        before, after = (
            connection.execute(f"SELECT * FROM '{file}'").fetchall() for file in (path, again(path))
        )
        assert repr(before) == repr(after)


@FEW
@given(tables(_POLARS_TYPES))
def test_what_polars_writes_to_parquet_is_read_value_by_value(table: pa.Table) -> None:
    with scratch() as directory:
        path = Path(directory, "a.parquet")
        try:
            pl.from_arrow(table).write_parquet(path)
        except pl.exceptions.PanicException:
            reject()  # a type that it cannot write
        after = pl.read_parquet(again(path))
        assert pl.read_parquet(path).equals(after, null_equal=True)


_CELL = st.none() | TEXT.filter(lambda text: "\x00" not in text)
_ROWS = st.lists(st.tuples(_CELL, _CELL), min_size=1, max_size=6)


def frame(rows: list[tuple[str | None, str | None]]) -> pa.Table:
    first, second = zip(*rows, strict=True)
    schema = pa.schema([("text", pa.string()), ("other", pa.string())])
    return pa.table([first, second], schema=schema)


def by_arrow(table: pa.Table, path: Path, options: ReaderOptions) -> None:
    chosen = pacsv.WriteOptions(delimiter=options.delimiter or ",")
    pacsv.write_csv(table, path, chosen)


def by_duckdb(table: pa.Table, path: Path, options: ReaderOptions) -> None:
    with duckdb.connect() as connection:
        connection.register("rows", table)
        connection.execute(
            f"COPY (SELECT * FROM rows) TO '{path}' (FORMAT csv, HEADER, "
            f"DELIMITER '{options.delimiter or ','}', QUOTE '\"', "
            f"ESCAPE '{options.escape or chr(34)}')"
        )


def by_polars(table: pa.Table, path: Path, options: ReaderOptions) -> None:
    pl.from_arrow(table).write_csv(path, separator=options.delimiter or ",")


_WRITERS = [
    (by_arrow, ReaderOptions(escape="")),
    (by_arrow, ReaderOptions(escape="", delimiter="\t")),
    (by_duckdb, ReaderOptions(escape="")),
    (by_duckdb, ReaderOptions(escape="", delimiter=";")),
    (by_duckdb, ReaderOptions(escape="\\")),
    (by_polars, ReaderOptions(escape="")),
    (by_polars, ReaderOptions(escape="", delimiter="|")),
]


@pytest.mark.parametrize(("write", "options"), _WRITERS)
def test_what_others_write_to_csv_is_read_value_by_value(
    write: Any, options: ReaderOptions
) -> None:
    @FEW
    @given(_ROWS)
    def check(rows: list[tuple[str | None, str | None]]) -> None:
        with scratch() as directory:
            path = Path(directory, "a.csv")
            write(frame(rows), path, options)
            assert plain(read(path, **options.given())) == plain(frame(rows)), path.read_bytes()

    check()


# pandas quotes no carriage return: before a line feed, nothing tells it from the end of a line
_ROWS_FOR_PANDAS = _ROWS.filter(lambda rows: not any((row[1] or "").endswith("\r") for row in rows))


@FEW
@given(
    _ROWS_FOR_PANDAS, st.sampled_from([",", "\t", ";"]), st.sampled_from(['"', "'"]), st.booleans()
)
def test_what_pandas_writes_to_csv_is_read_value_by_value(
    rows: list[tuple[str | None, str | None]], delimiter: str, quote: str, quote_all: bool
) -> None:
    with scratch() as directory:
        path = Path(directory, "a.csv")
        pd.DataFrame(rows, columns=["text", "other"]).to_csv(
            path,
            index=False,
            sep=delimiter,
            quotechar=quote,
            quoting=csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL,
            na_rep="" if not quote_all else "\\N",
        )
        found = read(path, delimiter=delimiter, quote=quote, escape="")
    missing = "\\N" if quote_all else None  # pandas quotes what stands for null, too
    expected = [tuple(_by_pandas(c, missing, quote_all) for c in row) for row in rows]
    assert [tuple(row.values()) for row in found.to_pylist()] == expected


def _by_pandas(cell: str | None, missing: str | None, quote_all: bool) -> str | None:
    """What pandas makes of a value: without quotes, an empty text and null are the same."""
    return missing if cell is None else cell if quote_all else cell or None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=4,
)


@FEW
@given(
    st.sampled_from(["integers", "floats", "texts", "lists"]),
    st.data(),
    st.sampled_from(["lines", "array", "pretty"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
)
def test_json_lines_are_read_value_by_value(
    kind: str, data: st.DataObject, layout: str, encoding: str
) -> None:
    of_kind = {
        "integers": st.integers(-(2**63), 2**63 - 1),
        "floats": st.floats(allow_nan=False, allow_infinity=False),
        "texts": TEXT,
        "lists": st.lists(st.integers(-(2**63), 2**63 - 1), max_size=3),
    }[kind]
    rows = data.draw(
        st.lists(
            st.fixed_dictionaries(
                {}, optional={"text": st.none() | TEXT, "n": st.none() | of_kind}
            ),
            min_size=1,
            max_size=5,
        )
    )
    with scratch() as directory:
        path = Path(directory, "a.json")
        path.write_text(_as_json(rows, layout), encoding=encoding)
        found = read(path).to_pylist()
    names = {name for row in rows for name in row}
    assert found == [{name: row.get(name) for name in found[0]} for row in rows] if names else True


def _as_json(rows: list[dict[str, Any]], layout: str) -> str:
    if layout == "lines":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    return json.dumps(rows, indent=2 if layout == "pretty" else None)


@FEW
@given(st.lists(st.tuples(TEXT, _JSON), min_size=1, max_size=5))
def test_json_of_mixed_types_keeps_every_value_as_json(rows: list[tuple[str, Any]]) -> None:
    with scratch() as directory:
        path = Path(directory, "a.jsonl")
        lines = io.StringIO()
        for text, value in rows:
            lines.write(json.dumps({"text": text, "value": value}) + "\n")
        path.write_text(lines.getvalue())
        found = read(path)
    kind = found.schema.field("value").type
    for (text, value), row in zip(rows, found.to_pylist(), strict=True):
        assert row["text"] == text
        if pa.types.is_string(kind) and not isinstance(value, str | None):
            assert json.loads(row["value"]) == value
        elif not pa.types.is_nested(kind):
            assert row["value"] == value
