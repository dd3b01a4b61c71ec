"""Random tables of every Arrow type that Parquet holds, and a comparison value by value."""

from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pyarrow as pa
from hypothesis import strategies as st

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8) | st.sampled_from(
    ["", "\ufeffa", "e\u0301", "\x00", "\u200b", "天气", "NaN", "null", "\\N", " x ", "1.0", '"']
)
Make = Callable[[pa.DataType], st.SearchStrategy[Any]]


def _within(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Integers of the type's range."""
    signed = pa.types.is_signed_integer(kind)
    low = -(2 ** (kind.bit_width - 1)) if signed else 0
    return st.integers(low, low + 2**kind.bit_width - 1)


def _floats(kind: pa.DataType) -> st.SearchStrategy[float]:
    return st.floats(width=kind.bit_width)


def _decimals(kind: pa.DataType) -> st.SearchStrategy[Decimal]:
    digits = st.integers(-(10**kind.precision) + 1, 10**kind.precision - 1)
    return digits.map(
        lambda n: Decimal((n < 0, tuple(map(int, str(abs(n)))), -kind.scale))  # without rounding
    )


def _bytes(kind: pa.DataType) -> st.SearchStrategy[bytes]:
    if pa.types.is_fixed_size_binary(kind):
        return st.binary(min_size=kind.byte_width, max_size=kind.byte_width)
    return st.binary(max_size=8)


def _times(kind: pa.DataType) -> st.SearchStrategy[time]:
    microseconds = {"s": 1_000_000, "ms": 1_000}.get(kind.unit, 1)
    of_day = st.integers(0, 86_400 * 1_000_000 // microseconds - 1)
    return of_day.map(
        lambda n: (datetime(2000, 1, 1) + timedelta(microseconds=n * microseconds)).time()
    )


def _timestamps(kind: pa.DataType) -> st.SearchStrategy[datetime]:
    first, last = datetime(1, 1, 2), datetime(9999, 12, 30)
    if kind.unit == "ns":
        first, last = datetime(1678, 1, 1), datetime(2262, 1, 1)
    zone = None if kind.tz is None else UTC
    return st.datetimes(first, last).map(lambda t: _cut(t, kind.unit).replace(tzinfo=zone))


def _durations(kind: pa.DataType) -> st.SearchStrategy[timedelta]:
    seconds = st.integers(-(10**9), 10**9)
    return seconds.map(lambda s: timedelta(seconds=s))


def _cut(moment: datetime, unit: str) -> datetime:
    digits = {"s": 1_000_000, "ms": 1_000}.get(unit, 1)
    return moment.replace(microsecond=moment.microsecond // digits * digits)


_LEAVES: list[tuple[pa.DataType, Make]] = [
    (pa.null(), lambda _: st.none()),
    (pa.bool_(), lambda _: st.booleans()),
    *((kind(), _within) for kind in (pa.int8, pa.int16, pa.int32, pa.int64)),
    *((kind(), _within) for kind in (pa.uint8, pa.uint16, pa.uint32, pa.uint64)),
    *((kind(), _floats) for kind in (pa.float16, pa.float32, pa.float64)),
    *((kind, _decimals) for kind in (pa.decimal32(7, 2), pa.decimal64(15, 3))),
    *((kind, _decimals) for kind in (pa.decimal128(38, 0), pa.decimal128(20, 10))),
    (pa.decimal256(60, 20), _decimals),
    *((kind(), lambda _: TEXT) for kind in (pa.string, pa.large_string, pa.string_view)),
    (pa.dictionary(pa.int32(), pa.string()), lambda _: TEXT),
    *((kind(), _bytes) for kind in (pa.binary, pa.large_binary, pa.binary_view)),
    (pa.binary(5), _bytes),
    *((kind(), lambda _: st.dates(date(1, 1, 1))) for kind in (pa.date32, pa.date64)),
    *(
        (kind, _times)
        for kind in (pa.time32("s"), pa.time32("ms"), pa.time64("us"), pa.time64("ns"))
    ),
    *((pa.timestamp(unit), _timestamps) for unit in ("s", "ms", "us", "ns")),
    *((pa.timestamp(unit, "Asia/Shanghai"), _timestamps) for unit in ("ms", "us", "ns")),
    *((pa.duration(unit), _durations) for unit in ("s", "ms", "us", "ns")),
]
LEAF_TYPES = [kind for kind, _ in _LEAVES]
_MAKE = {str(kind): make for kind, make in _LEAVES}


def _nested(inner: st.SearchStrategy[pa.DataType]) -> st.SearchStrategy[pa.DataType]:
    return st.one_of(
        inner.map(pa.list_),
        inner.map(pa.large_list),
        inner.map(lambda kind: pa.list_(kind, 2)),
        st.lists(inner, min_size=1, max_size=3).map(
            lambda kinds: pa.struct([(f"f{i}", kind) for i, kind in enumerate(kinds)])
        ),
        inner.map(lambda kind: pa.map_(pa.string(), kind)),
    )


_IN_NESTED = [kind for kind in LEAF_TYPES if not pa.types.is_dictionary(kind)]  # Arrow's limit
types = st.sampled_from(LEAF_TYPES) | st.recursive(
    st.sampled_from(_IN_NESTED), _nested, max_leaves=4
)


def values(kind: pa.DataType) -> st.SearchStrategy[Any]:
    """Values of a type, or None."""
    if pa.types.is_struct(kind):
        made: st.SearchStrategy[Any] = st.fixed_dictionaries({f.name: values(f.type) for f in kind})
    elif pa.types.is_map(kind):
        entries = st.tuples(TEXT, values(kind.item_type))
        made = st.lists(entries, max_size=2, unique_by=lambda entry: entry[0])
    elif pa.types.is_fixed_size_list(kind):
        made = st.lists(values(kind.value_type), min_size=kind.list_size, max_size=kind.list_size)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        made = st.lists(values(kind.value_type), max_size=3)
    else:
        made = _MAKE[str(kind)](kind)
    return st.none() | made


@st.composite
def tables(draw: st.DrawFn, kinds: st.SearchStrategy[pa.DataType] = types) -> pa.Table:
    """A table with a column `text` and up to four others of any type."""
    num_rows = draw(st.integers(1, 6))

    def column(kind: pa.DataType) -> pa.Array:
        rows = draw(st.lists(values(kind), min_size=num_rows, max_size=num_rows))
        return pa.array(rows, kind)

    others = draw(st.lists(kinds, min_size=1, max_size=4))
    named = {f"c{i}": column(kind) for i, kind in enumerate(others)}
    return pa.table({"text": column(pa.string()), **named})


def plain(rows: pa.Table) -> list[str]:
    """The values of a table, row by row, in a form in which equal values are equal."""
    return [repr({name: _plain(value) for name, value in row.items()}) for row in rows.to_pylist()]


def _plain(value: Any) -> Any:
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.astimezone(ZoneInfo("UTC")).isoformat()
    if isinstance(value, datetime):
        return datetime.isoformat(value)
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
