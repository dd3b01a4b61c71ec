"""The input of a prediction run: its files and units, checked before any work starts."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from distlstm.data.files import SourceFile, find_files, would_find
from distlstm.data.labelled import Columns
from distlstm.data.opening import UnreadableFileError, check_columns
from distlstm.data.reading import read_schema
from distlstm.data.units import Size, Unit, cut_into_units
from distlstm.errors import UserError
from distlstm.stages.prediction.parts import PredictionSettings, part_name, refuse_clash
from distlstm.stages.run.events import Note, OnEvent
from distlstm.text.columns import is_text_type


def trained_on(model_metadata: Mapping[str, Any]) -> Columns:
    """The columns that a model was trained on, from its metadata."""
    run, default = model_metadata.get("run", {}), Columns()
    return Columns(
        text=run.get("columns.text", default.text), label=run.get("columns.label", default.label)
    )


def find_input(
    inputs: Sequence[str], settings: PredictionSettings, output: str, *, on_event: OnEvent
) -> list[SourceFile]:
    """The files of the input; those passed over are reported.

    Raises:
        UserError: the first readable file lacks a column or already has an output column, no file
            is readable, or the output lies inside the input.
    """
    for source in inputs:
        if would_find(source, output):
            raise UserError(
                f"The output {output} lies inside the input {source}, and would be read as input. "
                "Choose an --output outside the input."
            )
    files = find_files(inputs, settings.reader, on_note=lambda text: on_event(Note(text)))
    settings.reader.check_used(file.format for file in files)
    _check_first_readable(files, settings)
    return files


def cut_input(files: Sequence[SourceFile], limit: Size) -> list[Unit]:
    """The units of the files; a file is cut into units of at most `limit`.

    An unreadable file stays one unit; its worker reports the error.

    Raises:
        UserError: two files would write the same part.
    """
    units = cut_into_units(files, limit, keep_unreadable=True)
    clashes = [name for name, count in Counter(map(part_name, units)).items() if count > 1]
    if clashes:
        raise UserError(
            f"Two input files would write the same part, {clashes[0]}. Give a directory that "
            "contains both, or use a different --output for each."
        )
    return units


def _check_first_readable(files: Sequence[SourceFile], settings: PredictionSettings) -> None:
    errors = []
    for file in files:
        try:
            schema = read_schema(file, until=[settings.text_column, *(settings.columns or ())])
        except UnreadableFileError as error:
            errors.append(error)
            continue
        check_columns(file, schema, [settings.text_column, *settings.kept(schema)])
        _check_text(file, schema, settings.text_column)
        refuse_clash(file.path, settings.kept(schema), settings.added)
        return
    raise errors[0]


def _check_text(file: SourceFile, schema: pa.Schema, column: str) -> None:
    kind = schema.field(column).type
    if not is_text_type(kind):
        raise UserError(f"Column {column!r} of {file.path} has type {kind}, not text.")
