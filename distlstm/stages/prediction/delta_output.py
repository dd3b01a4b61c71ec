"""A Delta table over the parts of an output: the parts are its data files."""

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any
from urllib.parse import unquote

import pyarrow as pa

from distlstm.data.files import SourceFile, hive_partitions
from distlstm.data.lakehouse import DELTA_LOG, library
from distlstm.data.opening import UnreadableFileError
from distlstm.data.reading import read_schema
from distlstm.errors import RunError, UserError
from distlstm.stages.prediction.footers import read_schemas
from distlstm.stages.prediction.parts import Part, PredictionSettings
from distlstm.storage import Directory, Entry
from distlstm.storage.connection import table_options
from distlstm.text.columns import is_list

_APPLICATION = "distlstm.batch-predict"
"""Names our transactions in the log, which are numbered from 1."""
_MILLISECOND = 1_000_000
_MOST_CHECKED = 1_000
"""Input files whose columns are compared before work starts."""
_SAME = {
    *(pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64()),
    *(pa.string(), pa.binary(), pa.date32()),
}
_STORED_AS = {
    pa.large_string(): pa.string(),
    pa.string_view(): pa.string(),
    pa.large_binary(): pa.binary(),
    pa.binary_view(): pa.binary(),
    pa.date64(): pa.date32(),
}
_MOST_DIGITS = 38


def delta_type(kind: pa.DataType) -> pa.DataType | None:
    """The type of a Delta table for values of an Arrow type in Parquet; None if there is none."""
    types = pa.types
    if kind in _SAME or kind in _STORED_AS:
        return _STORED_AS.get(kind, kind)
    if types.is_dictionary(kind):
        return delta_type(kind.value_type)
    if types.is_timestamp(kind) and kind.unit != "ns":
        return pa.timestamp("us", None if kind.tz is None else "UTC")
    if types.is_decimal(kind) and kind.precision <= _MOST_DIGITS:
        return pa.decimal128(kind.precision, kind.scale)
    if is_list(kind):
        inner = delta_type(kind.value_type)
        return None if inner is None else pa.list_(inner)
    if types.is_map(kind):
        key, item = delta_type(kind.key_type), delta_type(kind.item_type)
        return None if key is None or item is None else pa.map_(key, item)
    if types.is_struct(kind):
        inners = {field.name: delta_type(field.type) for field in kind}
        return None if None in inners.values() else pa.struct(list(inners.items()))
    return None


@dataclass(frozen=True)
class _Named:
    """The columns of a file."""

    path: str
    schema: pa.Schema


def one_schema(files: Iterable[tuple[str, pa.Schema]]) -> pa.Schema:
    """The columns of a Delta table of files with these paths and columns.

    Raises:
        UserError: the files differ, or have a column that Delta tables cannot have.
    """
    first: _Named | None = None
    for path, schema in files:
        named = _Named(path, _as_delta(path, schema))
        first = first or named
        _refuse_difference(first, named)
    return pa.schema([]) if first is None else first.schema


def _as_delta(path: str, schema: pa.Schema) -> pa.Schema:
    seen: dict[str, str] = {}
    for field in schema:
        other = seen.setdefault(field.name.lower(), field.name)
        if other != field.name:
            raise UserError(
                f"Columns {other!r} and {field.name!r} of {path} differ only in case, which a "
                "Delta table does not allow. Keep one of them with --columns."
            )
        if delta_type(field.type) is None:
            raise UserError(
                f"Column {field.name!r} of {path} has type {field.type}, which Delta tables do not "
                "have. Leave it out with --columns, or use --format parquet."
            )
    return pa.schema([(field.name, delta_type(field.type)) for field in schema])


def _refuse_difference(first: _Named, other: _Named) -> None:
    for field in [*first.schema, *other.schema]:
        kinds = [
            named.schema.field(field.name).type if field.name in named.schema.names else "missing"
            for named in (first, other)
        ]
        if kinds[0] != kinds[1]:
            raise UserError(
                f"Column {field.name!r} is {kinds[0]} in {first.path} and {kinds[1]} in "
                f"{other.path}; files of one Delta table have the same columns. Leave it out with "
                "--columns, or use --format parquet."
            )


def check_input(files: Sequence[SourceFile], settings: PredictionSettings) -> None:
    """Check that the parts of an input can be a Delta table, as far as its files state types.

    Raises:
        UserError: they cannot, or the library for such tables is not installed.
    """
    _deltalake()
    stating = (file for file in files if file.is_parquet or file.table is not None)
    one_schema(_kept(islice(stating, _MOST_CHECKED), settings))
    for file in files:
        _refuse_other_partitions(files[0].relative, file.relative)


def _kept(
    files: Iterable[SourceFile], settings: PredictionSettings
) -> Iterable[tuple[str, pa.Schema]]:
    for file in files:
        try:
            schema = read_schema(file)
        except UnreadableFileError:
            continue  # its worker reports it
        names = [name for name in settings.kept(schema) if name in schema.names]
        yield file.path, pa.schema([schema.field(name) for name in names])


def _refuse_other_partitions(first: str, other: str) -> None:
    names = [list(hive_partitions(path)) for path in (first, other)]
    if names[0] != names[1]:
        raise UserError(
            f"{first} has the partition columns {names[0]} and {other} {names[1]}; files of one "
            "Delta table have the same. Use --format parquet."
        )


def commit(output: Directory, parts: Sequence[Part]) -> int | None:
    """Commit what has changed in an output since its last commit, as one transaction.

    The table is created with the first commit. New parts are added, parts that were predicted
    again replace their entries, and entries of removed parts are removed.

    Returns:
        The new version of the table; None if there was nothing to commit.

    Raises:
        RunError: the parts cannot be one table, or another program has changed it.
    """
    deltalake = _deltalake()
    try:
        schema, partition_by = _columns_of(output, [part.name for part in parts])
    except UserError as error:
        raise RunError(f"The parts are kept, but cannot be one Delta table: {error}") from error
    files = {entry.name: entry for entry in output.list()}
    actions = {part.name: _add_action(files[part.name], part) for part in parts}
    columns = deltalake.Schema.from_arrow(schema)
    try:
        if not output.below(DELTA_LOG).is_empty():
            return _commit_changes(output, actions, columns, partition_by)
        deltalake.transaction.create_table_with_add_actions(
            output.location,
            columns,
            list(actions.values()),
            partition_by=partition_by,
            storage_options=table_options(output.location),
            commit_properties=_transaction(output, 1, actions),
        )
    except (OSError, deltalake.exceptions.DeltaError) as error:
        raise RunError(
            f"The parts are kept, but the Delta table in {output.location} could not be written: "
            f"{str(error).splitlines()[0].rstrip('.')}. Run the same command again."
        ) from error
    return 0


def _deltalake() -> Any:
    return library("deltalake", uri="The output", kind="delta")


def _columns_of(output: Directory, names: Sequence[str]) -> tuple[pa.Schema, list[str]]:
    """The columns of the table, and the names of those that partition it."""
    for name in names:
        _refuse_other_partitions(names[0], name)
    schema = one_schema(zip(names, read_schemas(output, names), strict=True))
    partition_by = list(hive_partitions(names[0]))
    fields = [field for field in schema if field.name not in partition_by]
    return pa.schema([*fields, *((name, pa.string()) for name in partition_by)]), partition_by


def _add_action(file: Entry, part: Part) -> Any:
    from deltalake.transaction import AddAction

    return AddAction(
        path=part.name,
        size=file.size,
        partition_values=hive_partitions(part.name),
        modification_time=file.modified // _MILLISECOND,
        data_change=True,
        stats=json.dumps({"numRecords": part.rows_out}),
    )


def _transaction(output: Directory, number: int, actions: Mapping[str, Any]) -> Any:
    """The next transaction; a file says beforehand which parts the table has by then.

    The log alone would not: a part that is missing there may be new, or another program may have
    rewritten its rows. If the command is killed, the log tells whether the transaction was made.
    """
    from deltalake import CommitProperties, Transaction

    states = {name: action.modification_time for name, action in actions.items()}
    output.write(_record(number), json.dumps(states))
    output.delete([_record(number - 2)])
    own = [Transaction(_APPLICATION, number)]
    return CommitProperties(app_transactions=own, max_commit_retries=0)


def _record(number: object) -> str:
    return f"_committed-{number}.json"


def _commit_changes(
    output: Directory, actions: Mapping[str, Any], columns: Any, partition_by: list[str]
) -> int | None:
    """Commit the difference to our last transaction; what others have committed stays."""
    table = _open(output)
    number = table.transaction_version(_APPLICATION)
    recorded = None if number is None else _recorded(output, number)
    if recorded is None:
        raise RunError(
            f"{output.location} has a Delta table that this command did not write. Choose another "
            "--output, or replace this one with --overwrite."
        )
    there = set(map(unquote, pa.table(table.get_add_actions(flatten=True))["path"].to_pylist()))
    changed = {n: a for n, a in actions.items() if recorded.get(n) != a.modification_time}
    rewritten = sorted(changed.keys() & recorded.keys() - there)
    if rewritten:
        raise RunError(
            f"The parts are kept, but another program has rewritten rows of {rewritten[0]} in "
            f"the Delta table in {output.location}, and its input has changed. Choose another "
            "--output."
        )
    gone = sorted((recorded.keys() - actions.keys()) & there)
    if not changed and not gone:
        return None
    table.create_write_transaction(
        [*changed.values(), *map(_remove_action, gone)],
        mode="append",
        schema=columns,
        partition_by=partition_by,
        commit_properties=_transaction(output, number + 1, actions),
    )
    return int(_open(output).version())


def _open(output: Directory) -> Any:
    options = table_options(output.location)
    return _deltalake().DeltaTable(output.location, storage_options=options)


def _recorded(output: Directory, number: int) -> dict[str, int] | None:
    """What our transaction of this number said; None if nothing readable is there."""
    try:
        return dict(json.loads(output.read_text(_record(number))))
    except (FileNotFoundError, ValueError):
        return None


def _remove_action(path: str) -> Any:
    from deltalake.transaction import RemoveAction

    return RemoveAction(
        path=path,
        data_change=True,
        deletion_timestamp=time.time_ns() // _MILLISECOND,
        partition_values=hive_partitions(path),
    )
