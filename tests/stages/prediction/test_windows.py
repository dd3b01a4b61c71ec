"""Tests of distlstm.stages.windows."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from distlstm.data.reading import BATCH_ROWS
from distlstm.data.units import Size
from distlstm.stages.prediction import windows
from distlstm.stages.prediction.windows import Rows, Unreadable, Window, read_windows
from tests.stages.small_model import SETTINGS, damage_page, settings, units_of


def write(path: Path, num_rows: int, *, row_group_size: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [f"{path.stem} {i}" for i in range(num_rows)]
    table = pa.table(
        {"id": pa.array(range(num_rows), pa.int64()), "text": pa.array(texts, pa.string())}
    )
    pq.write_table(table, path, row_group_size=row_group_size, write_page_checksum=True)


def rows_of(window: Window) -> list[tuple[str, int]]:
    """The file and the rows of each piece, -1 for one that cannot be read."""
    return [
        (piece.unit.file.relative, piece.batch.num_rows if isinstance(piece, Rows) else -1)
        for piece in window.pieces
    ]


def test_small_files_share_a_window_and_a_large_one_passes_in_several(tmp_path: Path) -> None:
    for name, num_rows in (("a", 3), ("b", 0), ("c", 4), ("d", 2 * BATCH_ROWS + 1), ("e", 2)):
        write(tmp_path / f"{name}.parquet", num_rows)
    found = list(read_windows(units_of(tmp_path), SETTINGS, max_rows=BATCH_ROWS))
    assert [rows_of(window) for window in found] == [
        [("a.parquet", 3), ("b.parquet", 0), ("c.parquet", 4), ("d.parquet", BATCH_ROWS)],
        [("d.parquet", BATCH_ROWS)],
        [("d.parquet", 1), ("e.parquet", 2)],
    ]
    assert [window.complete_rows for window in found] == [7, 0, 2 * BATCH_ROWS + 1 + 2]
    assert found[2].texts.to_pylist() == [f"d {2 * BATCH_ROWS}", "e 0", "e 1"]


def test_long_rows_fill_a_window_by_their_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in "abc":
        pq.write_table(pa.table({"text": ["x" * 600]}), tmp_path / f"{name}.parquet")
    monkeypatch.setattr(windows, "WINDOW_BYTES", 1_000)
    found = list(read_windows(units_of(tmp_path), SETTINGS))
    assert [rows_of(window) for window in found] == [
        [("a.parquet", 1), ("b.parquet", 1)],
        [("c.parquet", 1)],
    ]


@example_settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    max_rows=st.integers(1, 12),
    piece_rows=st.integers(1, 9),
)
def test_every_unit_has_a_piece_every_row_comes_once_in_order_and_the_sums_are_those_of_the_units(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], max_rows: int, piece_rows: int
) -> None:
    root = tmp_path_factory.mktemp("windows")
    for name, num_rows in zip("abcdef", sizes, strict=False):
        write(root / f"{name}.parquet", num_rows, row_group_size=3)
    units = units_of(root, Size(1, piece_rows))
    found = list(read_windows(units, SETTINGS, max_rows=max_rows))
    pieces = [piece for window in found for piece in window.pieces]
    assert list(dict.fromkeys(piece.unit for piece in pieces)) == units
    texts = [text for window in found for text in window.texts.to_pylist()]
    assert texts == [
        f"{name} {i}" for name, size in zip("abcdef", sizes, strict=False) for i in range(size)
    ]
    assert sum(window.complete_rows for window in found) == sum(sizes)
    assert sum(window.complete_bytes for window in found) == sum(unit.num_bytes for unit in units)
    done = [sum(window.complete_rows for window in found[: i + 1]) for i in range(len(found))]
    read = [sum(len(window.texts) for window in found[: i + 1]) for i in range(len(found))]
    assert all(complete <= so_far for complete, so_far in zip(done, read, strict=True))


def test_an_unreadable_unit_stands_in_its_place_and_the_others_go_on(tmp_path: Path) -> None:
    for name in "abc":
        write(tmp_path / f"{name}.parquet", 5)
    pq.write_table(pa.table({"body": ["x"]}), tmp_path / "b.parquet")
    lines = ['{"text": "good"}'] * BATCH_ROWS + ["not JSON"]
    (tmp_path / "b.jsonl").write_text("\n".join(lines))
    (window,) = read_windows(units_of(tmp_path), SETTINGS, max_rows=2**20)
    assert rows_of(window) == [
        *(("a.parquet", 5), ("b.jsonl", -1), ("b.parquet", -1), ("c.parquet", 5))
    ]
    errors = [str(piece.error) for piece in window.pieces if isinstance(piece, Unreadable)]
    assert "line 16385, is not JSON" in errors[0]
    assert "No column 'text'" in errors[1]
    assert len(window.texts) == 10


def test_a_unit_that_breaks_off_ends_with_its_error_after_the_rows_that_were_read(
    tmp_path: Path,
) -> None:
    write(tmp_path / "a.parquet", 2 * BATCH_ROWS, row_group_size=BATCH_ROWS)
    write(tmp_path / "b.parquet", 1)
    damage_page(tmp_path / "a.parquet", row_group=1)
    (window,) = read_windows(units_of(tmp_path), SETTINGS, max_rows=2**20)
    assert rows_of(window) == [("a.parquet", BATCH_ROWS), ("a.parquet", -1), ("b.parquet", 1)]


@pytest.mark.parametrize(
    "values", [[1, None, 3], [True, None, False], [[1], None, [2]], [{"a": 1}, None, {"a": 2}]]
)
def test_a_column_that_is_no_text_has_no_text_in_any_row_and_each_is_counted(
    tmp_path: Path, values: list[object]
) -> None:
    pq.write_table(pa.table({"text": values}), tmp_path / "a.parquet")
    (window,) = read_windows(units_of(tmp_path), SETTINGS)
    (piece,) = window.pieces
    assert isinstance(piece, Rows)
    assert piece.texts.missing == {"null": 1, "not_text": 2}
    assert window.texts.to_pylist() == [None, None, None]
    assert piece.batch.column("text").to_pylist() == values


@pytest.mark.parametrize("columns", [None, ("id", "day"), ("id",)])
def test_a_file_without_rows_has_the_columns_of_one_with_rows(
    tmp_path: Path, columns: tuple[str, ...] | None
) -> None:
    write(tmp_path / "day=1/id=7/a.parquet", 0)
    write(tmp_path / "day=1/id=7/b.parquet", 2)
    units = units_of(tmp_path)
    (window,) = read_windows(units, settings(columns=columns))
    none, some = [piece.batch for piece in window.pieces if isinstance(piece, Rows)]
    assert (none.num_rows, some.num_rows) == (0, 2)
    assert none.schema.equals(some.schema)


@pytest.mark.parametrize("columns", [None, ("v",)])
@pytest.mark.parametrize(
    ("name", "first", "last"),
    [
        ("a.jsonl", b'{"text": "x", "v": 1}', b'{"text": "x", "v": 2.5}'),
        ("a.jsonl", b'{"text": "x", "v": null}', b'{"text": "x", "v": 2}'),
        ("a.jsonl", b'{"text": "x", "v": "y"}', b'{"text": "x", "v": "caf\xe9"}'),
        ("a.csv", b"x,y", b"x,caf\xe9"),
    ],
)
def test_a_kept_column_has_one_type_throughout_a_file(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    columns: tuple[str, ...] | None,
    name: str,
    first: bytes,
    last: bytes,
) -> None:
    monkeypatch.setattr("distlstm.data.csv_rows.CSV_BLOCK", 2**12)
    header = [b"text,v"] if name.endswith("csv") else []
    (tmp_path / name).write_bytes(b"\n".join([*header, *[first] * BATCH_ROWS, last]))
    pieces = [
        piece
        for window in read_windows(units_of(tmp_path), settings(columns=columns))
        for piece in window.pieces
        if isinstance(piece, Rows)
    ]
    assert len(pieces) > 1
    assert len({piece.batch.schema.field("v") for piece in pieces}) == 1


@pytest.mark.parametrize(
    ("table", "changes", "message"),
    [
        ({"text": ["x"], "predicted_label": ["y"]}, {}, "already has a column 'predicted_label'"),
        ({"text": ["x"]}, {"columns": ("id",)}, "No column 'id'"),
        ({"text": ["x"], "predicted_scores": [1]}, {"top_k": 2}, "'predicted_scores'"),
    ],
)
def test_a_file_whose_columns_do_not_fit_is_unreadable(
    tmp_path: Path, table: dict[str, list[object]], changes: dict[str, object], message: str
) -> None:
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    (window,) = read_windows(units_of(tmp_path), settings(**changes))
    (piece,) = window.pieces
    assert isinstance(piece, Unreadable)
    assert message in str(piece.error)
    (window,) = read_windows(units_of(tmp_path), settings(columns=("text",)))
    assert len(window.texts) == 1
