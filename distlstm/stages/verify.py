"""`distlstm verify`: checks that a prediction output is complete, by Parquet footers alone.

It compares the manifest, the footers of the parts, and the input files that still exist. It reads
no data pages.
"""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from distlstm.data.files import SourceFile, find_files
from distlstm.data.opening import UnreadableFileError
from distlstm.data.reading import count_rows
from distlstm.errors import UserError
from distlstm.reader_options import ReaderOptions
from distlstm.stages.prediction.footers import FOOTERS_AT_ONCE, read_parts
from distlstm.stages.prediction.manifest import IN_MANIFEST, read_manifest
from distlstm.stages.prediction.parts import Part, part_names
from distlstm.stages.run.files import SUCCESS_FILE
from distlstm.stages.run.output import is_in_use, reading
from distlstm.stages.run.results import Verification
from distlstm.storage import Directory


def verify(output: Directory) -> Verification:
    """Compare an output with its manifest and its input.

    Raises:
        UserError: it is not an output of batch-predict, a command is at work on it, or its manifest
            is damaged.
    """
    _refuse_in_use(output)
    with reading(output):
        result = _verify(output)
    if result.faults:
        _refuse_in_use(output)  # a command began meanwhile
    return result


def _refuse_in_use(output: Directory) -> None:
    with reading(output):
        in_use = is_in_use(output)
    if in_use:
        raise UserError(
            f"A command is at work on {output.location}. Verify it when that has ended."
        )


def _verify(output: Directory) -> Verification:
    started = time.perf_counter()
    manifest = read_manifest(output)
    listed = {row["name"]: row for row in manifest["parts"]}
    names = part_names(output)
    parts = {part.name: part for part, _ in read_parts(output, names)}
    predicted = {row["input"] for row in listed.values()}
    settings = manifest["settings"]
    reader = ReaderOptions.of(settings.get("reader", {}))
    files = _files_of_tables(settings.get("snapshots", {}))
    files |= _files_of(manifest["run"]["inputs"], reader)
    files |= _files_of(predicted - files.keys(), reader)  # inputs of earlier runs
    faults = [
        *_faults_of_run(output, manifest),
        *_faults_of_parts(listed, names, parts, settings),
        *_faults_of_input(listed, files),
    ]
    return Verification(
        output=output.location,
        parts=len(listed),
        rows_out=sum(part.rows_out for name, part in parts.items() if name in listed),
        inputs_gone=len(predicted - files.keys()),
        faults=faults,
        seconds=time.perf_counter() - started,
    )


def _faults_of_run(output: Directory, manifest: Mapping[str, Any]) -> Iterator[str]:
    for error in manifest["run"]["errors"]:
        yield f"The last run reported: {error}"
    if not output.exists(SUCCESS_FILE):
        yield f"{SUCCESS_FILE} is missing: the last run did not finish."
    for column in ("rows_in", "rows_out"):
        total = sum(row[column] for row in manifest["parts"])
        if manifest[column] != total:
            yield (
                f"{column} is {manifest[column]:,} in the manifest, but its parts sum to {total:,}."
            )


def _faults_of_parts(
    listed: Mapping[str, Mapping[str, Any]],
    names: Sequence[str],
    parts: Mapping[str, Part],
    settings: Mapping[str, Any],
) -> Iterator[str]:
    there = set(names)
    for name, row in listed.items():
        part = parts.get(name)
        if name not in there:
            yield f"{name} is missing: {row['rows_out']:,} rows of {row['input']}."
        elif part is None:
            yield f"{name} is damaged: its content is not what was written."
        elif part.settings != settings:
            yield f"{name} was made with another model or other settings."
        elif any(getattr(part, column) != row[column] for column in IN_MANIFEST):
            yield f"{name} differs from its entry in the manifest."
    for name in names:
        if name not in listed:
            yield f"{name} is not in the manifest."


def _faults_of_input(
    listed: Mapping[str, Mapping[str, Any]], files: Mapping[str, SourceFile]
) -> Iterator[str]:
    rows_of = defaultdict[str, list[Mapping[str, Any]]](list)
    for row in listed.values():
        rows_of[row["input"]].append(row)
    to_count = []
    for path, rows in rows_of.items():
        file = files.get(path)
        if file is None:
            continue
        if any((r["unit"]["size"], r["unit"]["modified"]) != _state(file) for r in rows):
            yield f"{path} has changed since it was predicted."
        elif file.is_parquet:
            to_count.append(file)
    with ThreadPoolExecutor(FOOTERS_AT_ONCE) as threads:
        for file, count in zip(to_count, threads.map(_count, to_count), strict=True):
            predicted = sum(row["rows_in"] for row in rows_of[file.path])
            if count != predicted:
                yield f"{file.path} has {_shown(count)} rows, but its parts have {predicted:,}."
    for path in sorted(files.keys() - rows_of.keys()):
        yield f"{path} has no part: the file is new, or could not be read."


def _files_of(sources: Iterable[str], reader: ReaderOptions) -> dict[str, SourceFile]:
    """The files outside of tables that these sources name now; a source without any is left out."""
    files: dict[str, SourceFile] = {}
    for source in sources:
        try:
            found = find_files([source], reader)
        except UserError:
            continue
        files |= {file.path: file for file in found if file.table is None}
    return files


def _files_of_tables(snapshots: Mapping[str, str]) -> dict[str, SourceFile]:
    """The files of the snapshots that were predicted; a table that is gone is left out."""
    files: dict[str, SourceFile] = {}
    for uri, snapshot in snapshots.items():
        try:
            found = find_files([uri], ReaderOptions(snapshot=snapshot))
        except UserError:
            continue
        files |= {file.path: file for file in found}
    return files


def _state(file: SourceFile) -> tuple[int, int]:
    return file.size, file.modified


def _count(file: SourceFile) -> int | None:
    try:
        return count_rows(file)
    except UnreadableFileError:
        return None


def _shown(count: int | None) -> str:
    return "no readable" if count is None else f"{count:,}"
