"""A small file can hold large rows: batches are bounded by what is decoded."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlstm.data.decoded_size import SLICE_BYTES, cut_by_size, in_batches, row_sizes
from distlstm.data.files import find_files
from distlstm.data.opening import UnreadableFileError
from distlstm.data.reading import read_batches

MIB = 2**20


def batches_of(path: Path) -> list[pa.RecordBatch]:
    (file,) = find_files([str(path)])
    return list(read_batches(file))


def bomb(path: Path, column: pa.Array, *, store_schema: bool = True, **others: Any) -> Path:
    """A file whose dictionaries are not given up when they grow."""
    table = pa.table({"text": column, **others})
    sizes = {"dictionary_pagesize_limit": 2**30, "data_page_size": 2**30}
    pq.write_table(table, path, store_schema=store_schema, **sizes)
    return path


LONG = "goal team " * (MIB // 2)  # 5 MiB


@pytest.mark.parametrize(
    ("column", "is_deep"),
    [
        (pa.array([LONG] * 30), False),
        (pa.array([None, *[LONG] * 29], pa.large_string()), False),
        (pa.array([b"x", *[LONG.encode()] * 29], pa.large_binary()), False),
        (pa.array([LONG] * 30).dictionary_encode(), False),
        (pa.array([None, [], *[["a", LONG]] * 28], pa.list_(pa.string())), True),
        (pa.array([{"a": LONG, "b": 1}, None, *[{"a": LONG, "b": 2}] * 28]), True),
        (pa.array([[("k", LONG)]] * 30, pa.map_(pa.string(), pa.string())), True),
    ],
    ids=["string", "large_string", "binary", "dictionary", "list", "struct", "map"],
)
def test_rows_that_share_a_long_value_come_in_small_batches_and_equal(
    tmp_path: Path, column: pa.Array, is_deep: bool
) -> None:
    path = bomb(tmp_path / "a.parquet", column, n=list(range(30)))
    assert path.stat().st_size < MIB
    batches = batches_of(path)
    assert max(row_sizes(batch["text"]).sum() for batch in batches) <= SLICE_BYTES
    assert batches[0].schema.equals(pq.read_schema(path).remove_metadata())
    found = pa.Table.from_batches(batches)
    assert found["n"].to_pylist() == list(range(30))
    assert found["text"].to_pylist() == column.to_pylist()


@pytest.mark.parametrize(
    ("longest", "num_rows"),
    [(4, [16_384, 3_616]), (10_000, [13_421, 6_579]), (100_000, [16_384, 3_616])],
    ids=["short", "a few fit", "many would not fit, so they are measured"],
)
def test_short_values_come_in_large_batches_though_one_is_long(
    tmp_path: Path, longest: int, num_rows: list[int]
) -> None:
    path = bomb(tmp_path / "a.parquet", pa.array(["x" * longest, *["goal"] * 19_999]))
    assert [batch.num_rows for batch in batches_of(path)] == num_rows


def test_numbers_that_are_stored_once_come_in_small_batches(tmp_path: Path) -> None:
    offsets = np.arange(0, 10_000_001, 100_000, dtype=np.int32)
    lists = pa.ListArray.from_arrays(offsets, np.full(10_000_000, 7))  # 80 MB
    path = bomb(tmp_path / "a.parquet", lists)
    assert path.stat().st_size < MIB
    batches = batches_of(path)
    assert max(batch.nbytes for batch in batches) <= SLICE_BYTES
    assert sum(batch.num_rows for batch in batches) == 100


@pytest.mark.parametrize("use_dictionary", [True, False])
def test_a_row_that_is_too_large_is_named(tmp_path: Path, use_dictionary: bool) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"text": ["a", "b" * 65 * MIB, "c"], "id": [1, 2, 3]})
    pq.write_table(table, path, use_dictionary=use_dictionary, dictionary_pagesize_limit=2**30)
    with pytest.raises(UnreadableFileError, match=r"Row 1 .*65 MiB in column 'text'.*64 MiB"):
        batches_of(path)


PEAK = """
import resource, sys
from distlstm.data.files import find_files
from distlstm.data.reading import read_batches
(small,), (large,) = find_files([sys.argv[1]]), find_files([sys.argv[2]])
peaks = []
for file in (small, large):
    for batch in read_batches(file):
        del batch
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
print(peaks[1] - peaks[0])
"""


def test_a_small_file_of_large_rows_takes_little_memory(tmp_path: Path) -> None:
    small = bomb(tmp_path / "small.parquet", pa.array(["goal"] * 30))
    once = pa.DictionaryArray.from_arrays(np.zeros(20, np.int32), [LONG * 10])
    large = bomb(tmp_path / "large.parquet", once, store_schema=False)  # 1 GB decoded
    assert large.stat().st_size < 4 * MIB
    assert pq.read_schema(large).field("text").type == pa.string()
    command = [sys.executable, "-c", PEAK, str(small), str(large)]
    kibibytes = int(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
    assert kibibytes < 500 * 1024


def test_long_lines_of_json_come_in_small_batches(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(f'{{"text": "{LONG}"}}\n' * 20 + '{"text": "x"}\n' * 20)
    assert [batch.num_rows for batch in batches_of(path)] == [4, 4, 4, 4, 4, 20]


@given(st.lists(st.integers(0, 10), max_size=20), st.integers(1, 15))
def test_slices_have_all_rows_in_order_and_fit(sizes: list[int], limit: int) -> None:
    slices = list(cut_by_size(np.array(sizes, float), limit))
    assert [row for start, end in slices for row in range(start, end)] == list(range(len(sizes)))
    assert all(end - start == 1 or sum(sizes[start:end]) <= limit for start, end in slices)


def test_batches_of_rows_end_when_they_are_large_or_many() -> None:
    assert list(in_batches([1, 1, 1], int, 2)) == [[1, 1], [1]]
    assert list(in_batches([SLICE_BYTES, 1, 1], int, 9)) == [[SLICE_BYTES], [1, 1]]
    assert list(in_batches([], int, 9)) == []
