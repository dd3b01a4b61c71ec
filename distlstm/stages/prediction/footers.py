"""The Parquet footers of parts, which say what each part is: they are the ledger of an output."""

import json
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import fields, replace
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.data.filesystem import open_filesystem
from distlstm.model.calibration import SCORE_BINS
from distlstm.regular_file import regular_size
from distlstm.stages.prediction.parts import Part, Sums
from distlstm.storage import Directory, LocalStorage, UnreachableError

FOOTERS_AT_ONCE = 8
STORED_FOOTERS_AT_ONCE = 64
"""An object store takes long to answer, and answers many at once."""
_Result = TypeVar("_Result")
_KEY = b"distlstm"
_TAIL_BYTES = 8  # after the footer: its length and "PAR1"


def footer_of(part: Part, sums: Sums) -> dict[bytes, str]:
    """What the Parquet footer of a part says about it."""
    return {_KEY: json.dumps({**vars(part), **vars(sums)}, allow_nan=False)}


def _from_footer(text: bytes) -> tuple[Part, Sums]:
    entry = dict(json.loads(text))
    of_part = {f.name: entry.pop(f.name) for f in fields(Part) if f.name in entry}
    counts = Counter[str](dict(entry.pop("label_counts")))
    sums = Sums(label_counts=counts, **entry)
    if len(sums.score_histogram) != SCORE_BINS:
        raise ValueError("the histogram is of another kind")
    return Part(**of_part), sums


def read_part(output: Directory, name: str) -> tuple[Part, Sums] | None:
    """What a file's footer says of a part; None if the file is missing, damaged or no part.

    Raises:
        UnreachableError: the object store did not answer, so that nothing is known of the part.
    """
    filesystem, directory = open_filesystem(output.location)
    try:
        if isinstance(output, LocalStorage):
            regular_size(output.path / name)
        with filesystem.open_input_file(f"{directory}/{name}") as file:
            footer, size = pq.read_metadata(file), file.size()
        part, sums = _from_footer((footer.metadata or {})[_KEY])
        whole = size == _size_by_footer(footer)
    except UnreachableError:
        raise
    except (OSError, pa.ArrowException, KeyError, ValueError, TypeError):
        return None
    return (part, sums) if whole and footer.num_rows == part.rows_out else None


def read_parts(output: Directory, names: Iterable[str]) -> Iterator[tuple[Part, Sums]]:
    """The parts with these names that exist and are complete, in order.

    Those with equal settings share them, to save memory.
    """
    settings = dict[str, Any]()
    for found in _read_each(partial(read_part, output), output, names):
        if found is not None:
            part, sums = found
            if part.settings != settings:
                settings = part.settings
            yield replace(part, settings=settings), sums


def read_schemas(output: Directory, names: Iterable[str]) -> Iterator[pa.Schema]:
    """The columns of files, in order."""
    filesystem, directory = open_filesystem(output.location)

    def read(name: str) -> pa.Schema:
        return pq.read_schema(f"{directory}/{name}", filesystem=filesystem)

    return _read_each(read, output, names)


def _read_each(
    read: Callable[[str], _Result], output: Directory, names: Iterable[str]
) -> Iterator[_Result]:
    """The results in order, of which few are in memory at once."""
    at_once = FOOTERS_AT_ONCE if output.is_local else STORED_FOOTERS_AT_ONCE
    waiting = deque[Future[_Result]]()
    with ThreadPoolExecutor(at_once) as threads:
        for name in names:
            waiting.append(threads.submit(read, name))
            if len(waiting) > 2 * at_once:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _size_by_footer(footer: pq.FileMetaData) -> int:
    """The size in bytes that the file must have: in our parts, the footer follows the data."""
    ends = [4]
    for group in map(footer.row_group, range(footer.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            pages = (column.dictionary_page_offset, column.data_page_offset)
            start = min(offset for offset in pages if offset)
            ends.append(start + column.total_compressed_size)
    return max(ends) + int(footer.serialized_size) + _TAIL_BYTES
