"""Rows of JSON lines: an object a line; also objects over several lines, and an array of them."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import pyarrow as pa

from distlstm.data.decoded_size import in_batches
from distlstm.data.files import SourceFile
from distlstm.data.opening import (
    UnreadableFileError,
    is_unicode,
    opened_text,
    text_column,
    unreadable,
)

_ROWS_AT_ONCE = 16_384
_LARGEST_EXACT = 2**53
"""The integers up to here are exact as float64."""
_BETWEEN_VALUES = " \t\r\n,"


def read_jsonl(
    file: SourceFile, columns: Sequence[str] | None, batch_rows: int, one_type: bool
) -> Iterator[pa.RecordBatch]:
    """The rows of a file; see `reading.read_batches`."""
    types: dict[str, pa.DataType | None] = dict.fromkeys(columns or ())
    if one_type:
        types |= _jsonl_types(file, None if columns is None else tuple(columns))
    for rows in _jsonl_rows(file, batch_rows):
        arrays = [
            _json_column([row.get(name, file.partitions.get(name)) for row in rows], kind)
            for name, kind in types.items()
        ]
        arrays = [a.cast(pa.string()) if pa.types.is_null(a.type) else a for a in arrays]
        yield pa.RecordBatch.from_arrays(arrays, names=list(types))


@lru_cache(maxsize=8)
def _jsonl_types(file: SourceFile, columns: tuple[str, ...] | None) -> Mapping[str, pa.DataType]:
    """One type for each column in the whole file, from an extra pass."""
    types: dict[str, pa.DataType] = {}
    large: set[str] = set()
    for rows in _jsonl_rows(file, _ROWS_AT_ONCE):
        for name in dict.fromkeys(name for row in rows for name in row):
            if columns is not None and name not in columns:
                continue
            if not is_unicode(name):
                raise unreadable(file, ValueError(f"the column name {name!r} is not UTF-8"))
            values = [row.get(name) for row in rows]
            found = _json_column(values, None).type
            types[name] = _common_type(types.get(name, pa.null()), found)
            if not pa.types.is_string(found) and any(map(_has_large_integer, values)):
                large.add(name)
    return {
        name: pa.string()
        if _has_empty_struct(kind) or (name in large and _has_float(kind))
        else kind
        for name, kind in types.items()
    }


def _has_large_integer(value: Any) -> bool:
    """Whether a value holds an integer that would lose digits as a float."""
    if isinstance(value, dict):
        return any(map(_has_large_integer, value.values()))
    if isinstance(value, list):
        return any(map(_has_large_integer, value))
    return type(value) is int and abs(value) > _LARGEST_EXACT


def _has_float(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind):
        return _has_float(kind.value_type)
    if pa.types.is_struct(kind):
        return any(_has_float(field.type) for field in kind)
    return bool(pa.types.is_floating(kind))


def _has_empty_struct(kind: pa.DataType) -> bool:
    """Whether a type has a struct without fields (`{}` in all rows), which Parquet cannot store."""
    if pa.types.is_list(kind):
        return _has_empty_struct(kind.value_type)
    if not pa.types.is_struct(kind):
        return False
    return kind.num_fields == 0 or any(_has_empty_struct(field.type) for field in kind)


def _common_type(first: pa.DataType, second: pa.DataType) -> pa.DataType:
    if pa.binary() in (first, second):
        return pa.binary()
    try:
        schemas = [pa.schema([("column", kind)]) for kind in (first, second)]
        return pa.unify_schemas(schemas, promote_options="permissive").field("column").type
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return pa.string()


def json_names(file: SourceFile, until: Sequence[str] | None) -> list[str]:
    """The keys of a file, in the order in which they first appear; until these were all seen."""
    if until is None:
        return list(_jsonl_types(file, None))
    names: dict[str, None] = {}
    for rows in _jsonl_rows(file, _ROWS_AT_ONCE):
        names |= dict.fromkeys(name for row in rows for name in row)
        if set(until) <= names.keys():
            break
    return [name for name in names if is_unicode(name)]


def _jsonl_rows(file: SourceFile, batch_rows: int) -> Iterator[list[dict[str, Any]]]:
    for rows in in_batches(_objects(file), lambda row: row.size, batch_rows):
        yield [row.values for row in rows]


class _Row(NamedTuple):
    """An object, and its size in the file in characters."""

    values: dict[str, Any]
    size: int


_DECODER = json.JSONDecoder(parse_constant=lambda _: None)
"""`NaN` and `Infinity`, which Python writes and JSON does not have, are null."""


def _objects(file: SourceFile) -> Iterator[_Row]:
    with opened_text(file) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = _DECODER.decode(line)
            except (ValueError, RecursionError) as error:
                if _may_go_on(line, error):
                    yield from _objects_over_lines(file, number, line, lines)
                    return
                raise _not_json(file, number, error) from error
            if isinstance(row, list):  # an array on one line
                size = len(line) // max(1, len(row))
                yield from (_Row(_object(file, number, each), size) for each in row)
            else:
                yield _Row(_object(file, number, row), len(line))


def _may_go_on(line: str, error: Exception) -> bool:
    """Whether a line is the beginning of an array or an object over several lines."""
    reached_end = getattr(error, "pos", 0) >= len(line.rstrip()) - 1
    return line.lstrip()[0] in "[{" and (reached_end or line.strip() == "[")


def _objects_over_lines(
    file: SourceFile, number: int, line: str, lines: Iterable[str]
) -> Iterator[_Row]:
    """The objects of an array, or of no array, each over any number of lines."""
    rest, start = line.lstrip().removeprefix("["), number
    for more in _and_end(lines):
        rest = rest.lstrip(_BETWEEN_VALUES)
        while rest and not rest.startswith("]"):
            try:
                row, end = _DECODER.raw_decode(rest)
            except (ValueError, RecursionError) as error:
                if not more:
                    raise _not_json(file, start, error) from error
                break
            yield _Row(_object(file, start, row), end)
            rest = rest[end:].lstrip(_BETWEEN_VALUES)
            start = number if rest else number + 1
        rest, number = rest + more, number + 1


def _and_end(lines: Iterable[str]) -> Iterator[str]:
    """The lines, and an empty one at the end."""
    yield from lines
    yield ""


def _object(file: SourceFile, number: int, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UnreadableFileError(f"{file.path}, line {number}, is not a JSON object.")
    return value


def _not_json(file: SourceFile, number: int, error: Exception) -> UnreadableFileError:
    return UnreadableFileError(f"{file.path}, line {number}, is not JSON: {error}.")


def _json_column(values: list[Any], kind: pa.DataType | None) -> pa.Array:
    """JSON values as one Arrow column; if types do not mix, all but texts become JSON text."""
    if kind != pa.string():
        try:
            return pa.array(values, kind)
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
            pass
    column = text_column([_to_text(value) for value in values])
    return column if kind is None else column.cast(kind)


def _to_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(value)
