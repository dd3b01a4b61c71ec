"""Reads the text, label and weight columns of user data into clean columns."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from distlstm.errors import UserError
from distlstm.text.normalization import clean_names, is_blank


@dataclass(frozen=True, kw_only=True)
class TextColumn:
    """A text column, with null where there is no text to classify.

    `texts` is a string array; `missing` counts its nulls by reason (`null`, `empty`, `not_utf8`).
    """

    texts: pa.Array
    missing: dict[str, int]


def is_text_type(kind: pa.DataType) -> bool:
    """Whether a column of this Arrow type can contain text; binary can, as UTF-8, and JSON."""
    if pa.types.is_dictionary(kind):
        return is_text_type(kind.value_type)
    if isinstance(kind, pa.BaseExtensionType):
        return is_text_type(kind.storage_type)
    checks = (
        pa.types.is_string,
        pa.types.is_large_string,
        pa.types.is_string_view,
        pa.types.is_binary,
        pa.types.is_large_binary,
        pa.types.is_binary_view,
        pa.types.is_null,
    )
    return any(check(kind) for check in checks)


def read_texts(column: pa.Array) -> TextColumn:
    """Trim a text column; values that are not UTF-8 or have no visible character become null.

    Raises:
        UserError: the column does not have a text type.
    """
    if pa.types.is_dictionary(column.type):
        return read_texts(column.dictionary_decode())
    if isinstance(column.type, pa.BaseExtensionType):
        return read_texts(column.storage)
    if not is_text_type(column.type):
        raise UserError(f"has type {column.type}, not text")
    null = column.null_count
    texts = _as_utf8(column)
    not_utf8 = texts.null_count - null
    trimmed = pc.utf8_trim_whitespace(texts)
    trimmed = pc.if_else(is_blank(trimmed), pa.scalar(None, pa.string()), trimmed)
    missing = {"null": null, "not_utf8": not_utf8, "empty": trimmed.null_count - null - not_utf8}
    return TextColumn(
        texts=trimmed, missing={reason: count for reason, count in missing.items() if count}
    )


def read_labels(column: pa.Array) -> pa.Array:
    """Labels as strings; an empty label is null.

    Integers, booleans, whole floats and whole decimals become strings. Names that look the same
    are equal. Lists of texts (label sets) stay lists of strings: each label once, none empty.

    Raises:
        UserError: the column has a type or a value that cannot be a label, such as 0.5.
    """
    kind = column.type
    if is_label_set(kind):
        return _read_label_sets(column)
    if _is_list_of_numbers(kind):
        raise UserError(
            f"has type {kind}, which does not name the labels; give probabilities as a struct "
            "or a map of label to probability"
        )
    if pa.types.is_dictionary(kind):
        return read_labels(column.dictionary_decode())
    if isinstance(kind, pa.BaseExtensionType) and is_text_type(kind):
        return read_labels(column.storage)
    if pa.types.is_floating(kind):
        column = _whole_floats(column)
    elif pa.types.is_decimal(kind):
        column = _whole_decimals(column)
    elif not (pa.types.is_integer(kind) or pa.types.is_boolean(kind) or is_text_type(kind)):
        raise UserError(f"has type {kind}; {_NOT_A_LABEL}")
    labels = _as_utf8(column) if is_text_type(kind) else column.cast(pa.string())
    labels = clean_names(labels)
    return pc.if_else(pc.equal(labels, ""), pa.scalar(None, pa.string()), labels)


@dataclass(frozen=True, kw_only=True)
class WeightColumn:
    """The weight of each row (float32, [rows]).

    `faults` (string, [rows]) are the reasons why weights are unusable; null means none.
    """

    weights: np.ndarray
    faults: pa.Array


def read_weights(column: pa.Array) -> WeightColumn:
    """Read weights from numbers or from texts of numbers.

    Raises:
        UserError: the column has values that are not numbers.
    """
    if pa.types.is_dictionary(column.type):
        return read_weights(column.dictionary_decode())
    numbers = _as_numbers(column)
    weights = numbers.fill_null(0).to_numpy(zero_copy_only=False)
    with np.errstate(over="ignore"):  # a value too large for float32 becomes infinite
        weights = weights.astype(np.float32)
    not_finite = pa.array(~np.isfinite(weights))
    faults = pc.case_when(
        pc.make_struct(numbers.is_null(), not_finite, pa.array(weights < 0)),
        *("no weight", "a weight that is not finite", "a negative weight"),
        pa.scalar(None, pa.string()),
    )
    return WeightColumn(weights=weights, faults=faults)


def _as_numbers(column: pa.Array) -> pa.Array:
    kind = column.type
    if is_text_type(kind):
        texts = pc.utf8_trim_whitespace(_as_utf8(column))
        column = pc.if_else(pc.equal(texts, ""), pa.scalar(None, pa.string()), texts)
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise UserError(f"has type {kind}; a weight is a number")
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid as error:
        raise UserError("has texts that are not numbers; a weight is a number") from error


def hash_texts(texts: pa.Array) -> np.ndarray:
    """A 64-bit hash of each text (uint64, [rows]), the same on every machine and in every run."""
    values = texts.to_numpy(zero_copy_only=False)
    return np.asarray(pd.util.hash_array(values, categorize=False))


def is_label_set(kind: pa.DataType) -> bool:
    """Whether a label column of this Arrow type contains label sets: lists of texts."""
    return is_list(kind) and is_text_type(kind.value_type)


def is_list(kind: pa.DataType) -> bool:
    """Whether this is one of Arrow's types of lists."""
    lists = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(check(kind) for check in lists)


def _read_label_sets(column: pa.Array) -> pa.Array:
    labels = read_labels(pc.list_flatten(column))
    rows = pc.list_parent_indices(column)
    members = pa.table({"row": rows.cast(pa.int64()), "label": labels}).filter(labels.is_valid())
    distinct = members.group_by(["row", "label"]).aggregate([]).sort_by("row")
    lengths = np.bincount(distinct["row"].to_numpy(), minlength=len(column))
    return pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int32()),
        distinct["label"].combine_chunks(),
        mask=column.is_null(),
    )


def _is_list_of_numbers(kind: pa.DataType) -> bool:
    numbers = (pa.types.is_floating, pa.types.is_integer, pa.types.is_decimal)
    return is_list(kind) and any(check(kind.value_type) for check in numbers)


def _as_utf8(column: pa.Array) -> pa.Array:
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    raw = column.cast(pa.binary())
    try:
        return raw.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([_decode(value) for value in raw.to_pylist()], pa.string())


def _decode(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return None


_NOT_A_LABEL = "a label is a text or a whole number"


def _whole_floats(column: pa.Array) -> pa.Array:
    column = column.cast(pa.float64())
    column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        fault = (
            "fractions"
            if pc.any(pc.not_equal(pc.floor(column), column)).as_py()
            else "infinite numbers, or numbers of more than 64 bits"
        )
        raise UserError(f"has {fault}; {_NOT_A_LABEL}") from error


def _whole_decimals(column: pa.Array) -> pa.Array:
    try:
        return column.cast(pa.decimal256(76, 0))
    except pa.ArrowInvalid as error:
        raise UserError(f"has fractions; {_NOT_A_LABEL}") from error
