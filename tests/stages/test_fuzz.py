"""Random tables go through `batch-predict`: every column comes out as it went in."""

import json
import shutil
from pathlib import Path

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import distlstm
from distlstm.reader_options import ReaderOptions
from tests.tables import TEXT, plain, tables

pytestmark = [pytest.mark.ray, pytest.mark.fault, pytest.mark.usefixtures("ray_cluster")]
ONCE = settings(
    max_examples=6, deadline=None, suppress_health_check=[*HealthCheck], report_multiple_bugs=False
)
ROWS = st.lists(
    st.fixed_dictionaries({"text": st.none() | TEXT, "other": st.none() | TEXT}), min_size=1
)


def predicted(model: Path, root: Path, **reader: object) -> Path:
    result = distlstm.batch_predict(
        root / "in", model=model, output=root / "out", reader=ReaderOptions(**reader)
    )
    assert result.rows_in == result.rows_out
    return root / "out"


def emptied(root: Path) -> Path:
    shutil.rmtree(root, ignore_errors=True)
    (root / "in").mkdir(parents=True)
    return root


def test_every_column_of_parquet_comes_out_value_by_value(model: Path, tmp_path: Path) -> None:
    @ONCE
    @given(st.lists(tables(), min_size=8, max_size=8))
    def check(many: list[pa.Table]) -> None:
        root, kept = emptied(tmp_path / "parquet"), {}
        for number, table in enumerate(many):
            path = root / f"in/{number}.parquet"
            try:
                pq.write_table(table, path, row_group_size=2)
                kept[path.name] = table
            except pa.ArrowNotImplementedError:
                path.unlink()  # a type that Arrow does not write
        output = predicted(model, root)
        for name, table in kept.items():
            after = pq.ParquetFile(output / name).read().select(table.column_names)
            assert plain(after) == plain(table), table.schema

    check()


def test_every_column_of_csv_and_json_lines_comes_out_value_by_value(
    model: Path, tmp_path: Path
) -> None:
    schema = pa.schema([("text", pa.string()), ("other", pa.string())])

    @ONCE
    @given(st.lists(ROWS, min_size=8, max_size=8))
    def check(many: list[list[dict[str, str | None]]]) -> None:
        root, kept = emptied(tmp_path / "csv"), {}
        for number, rows in enumerate(many):
            rows = [{k: v and v.replace("\0", "") for k, v in row.items()} for row in rows]
            table, stem = pa.Table.from_pylist(rows, schema), root / f"in/{number}"
            pacsv.write_csv(table, f"{stem}-arrow.csv")
            pl.from_arrow(table).write_csv(f"{stem}-polars.csv")
            with duckdb.connect() as connection:
                connection.register("rows", table)
                connection.execute(f"COPY (FROM rows) TO '{stem}-duckdb.csv' (HEADER)")
                connection.execute(f"COPY (FROM rows) TO '{stem}-duckdb.json'")
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            Path(f"{stem}-python.jsonl").write_text(lines)
            kept |= {path.name: table for path in root.glob(f"in/{number}-*")}
        output = predicted(model, root, escape="")
        for name, table in kept.items():
            after = pq.ParquetFile(output / f"{name}.parquet").read().select(table.column_names)
            assert plain(after) == plain(table), name

    check()
