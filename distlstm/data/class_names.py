"""Class names of integer labels, from the metadata that Hugging Face `datasets` writes to Parquet.

A `ClassLabel` column has integers; their names stand as JSON under the key `huggingface` of the
schema.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distlstm.errors import UserError
from distlstm.text.columns import is_list

_KEY = b"huggingface"
_LISTS = ("Sequence", "List", "LargeList")
_NO_CLASS = -1


def class_names(metadata: Mapping[bytes, bytes] | None, column: str) -> tuple[str, ...]:
    """The names of the classes of a column, by number; empty if the metadata has none.

    Metadata of any other form counts as none.
    """
    try:
        feature = json.loads((metadata or {})[_KEY])["info"]["features"][column]
    except (KeyError, TypeError, ValueError, RecursionError):
        return ()
    names = _names_of(feature)
    are_texts = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if are_texts else ()


def _names_of(feature: Any) -> Any:
    """The names of a `ClassLabel`, or of a list of them."""
    match feature:
        case {"_type": "ClassLabel", "names": names}:
            return names
        case {"_type": kind, "feature": inner} if kind in _LISTS:
            return _names_of(inner)
        case [inner]:
            return _names_of(inner)
    return None


def with_class_names(column: pa.Array, names: tuple[str, ...]) -> pa.Array:
    """A column of class numbers, or of lists of them, as class names; -1 becomes null.

    A column without names, or of another type, stays as it is.

    Raises:
        UserError: a number has no name.
    """
    if not names:
        return column
    if pa.types.is_integer(column.type):
        return _named(column, names)
    if is_list(column.type) and pa.types.is_integer(column.type.value_type):
        lengths = pc.fill_null(pc.list_value_length(column), 0)
        ends = np.cumsum(lengths.to_numpy(zero_copy_only=False))
        return pa.ListArray.from_arrays(
            pa.array(np.concatenate([[0], ends]), pa.int32()),
            _named(pc.list_flatten(column), names),
            mask=column.is_null(),
        )
    return column


def _named(numbers: pa.Array, names: tuple[str, ...]) -> pa.Array:
    bounds = pc.min_max(numbers)
    for number in (bounds["min"].as_py(), bounds["max"].as_py()):
        if number is not None and not _NO_CLASS <= number < len(names):
            raise UserError(
                f"has the class {number}, but the metadata of the file names the classes from 0 to "
                f"{len(names) - 1}"
            )
    numbers = numbers.cast(pa.int64())
    is_class = pc.not_equal(numbers, _NO_CLASS)
    return pa.array(names, pa.string()).take(pc.if_else(is_class, numbers, None))
