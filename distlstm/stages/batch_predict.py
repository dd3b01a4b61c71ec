"""`distlstm batch-predict`: a label for every row, each exactly once.

The output is the ledger. A part's footer says which unit of which input it holds and which model
made it; a restart reads the footers and runs only what is missing.
"""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from distlstm.atomic import remove_leftovers, write_text
from distlstm.data.files import SourceFile, find_files
from distlstm.data.reading import UnreadableFileError, check_columns, read_schema
from distlstm.data.units import Unit, cut_into_units
from distlstm.errors import RunError, UserError
from distlstm.model.directory import load_model
from distlstm.stages.actor_pool import Work, map_units
from distlstm.stages.events import Note, OnEvent, Progress
from distlstm.stages.output import check_output, check_same, read_identity
from distlstm.stages.part_writer import PartWriter, refuse_clash
from distlstm.stages.parts import (
    PREDICTED,
    TOP_K,
    Part,
    PredictionSettings,
    part_name,
    plain,
    read_part,
)
from distlstm.stages.predictor import Predictor
from distlstm.stages.session import Resources, ray_session
from distlstm.text.columns import is_text_type

MANIFEST_FILE, SUCCESS_FILE = "_manifest.json", "_SUCCESS"


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """What to label, and which columns come out."""

    inputs: tuple[str, ...]
    model: Path
    text_column: str = "text"
    columns: tuple[str, ...] | None = None
    top_k: int | None = None
    min_score: float | None = None


@dataclass(frozen=True, kw_only=True)
class BatchPredictResult:
    """What `batch-predict` reports; the keys of its `--json` result."""

    output: str
    rows_in: int
    rows_out: int
    rows_without_prediction: int
    parts_written: int
    parts_reused: int
    seconds: float
    rows_per_second: float
    """Over all workers while they worked, start-up aside."""
    tokens_per_second: float


def batch_predict(
    request: PredictRequest,
    *,
    output: Path,
    resources: Resources,
    overwrite: bool,
    on_event: OnEvent,
) -> BatchPredictResult:
    """Label every row of the inputs into `output`, or what of it is not yet done.

    Raises:
        UserError: bad input, or an output that another model or other settings made.
        RunError: a file could not be read; every other file is done and kept.
    """
    started = time.perf_counter()
    output, request = output.absolute(), replace(request, model=request.model.absolute())
    settings = _settings(request)
    units = _units(request)
    check_output(output, marks=(MANIFEST_FILE,), overwrite=overwrite)
    _claim(output, settings)
    done = _finished_parts(units, output, settings)
    missing = [unit for unit in units if part_name(unit) not in done]
    if done:
        on_event(Note(f"{len(done)} of {len(units)} parts are already done."))
    run = _Run(output=output, request=request, settings=settings, on_event=on_event)
    if missing:
        run.predict(missing, resources)
    parts = sorted([*done.values(), *run.parts], key=lambda part: part.name)
    _remove_stale(output, units)
    _write_manifest(output, settings, parts, run.errors)
    if run.errors:
        raise RunError(
            f"{len(run.errors)} of {len(units)} parts could not be written; the others are kept. "
            + " ".join(run.errors[:3])
        )
    write_text(output / SUCCESS_FILE, "")
    return _result(output, parts, run, time.perf_counter() - started)


def _settings(request: PredictRequest) -> PredictionSettings:
    return PredictionSettings(
        model=load_model(request.model).fingerprint,
        text_column=request.text_column,
        columns=request.columns,
        top_k=request.top_k,
        min_score=request.min_score,
    )


def _units(request: PredictRequest) -> list[Unit]:
    """Cut the input into units.

    Raises:
        UserError: the first readable file lacks a column or would get one twice, no file can be
            read, or two inputs would write the same part.
    """
    files = find_files(request.inputs)
    _check_first_readable(files, request)
    units = [unit for file in files for unit in _cut(file)]
    clashes = [name for name, count in Counter(map(part_name, units)).items() if count > 1]
    if clashes:
        raise UserError(
            f"Two inputs would write the same part, {clashes[0]}. Name a directory above both, or "
            "predict them into different outputs."
        )
    return units


def _cut(file: SourceFile) -> list[Unit]:
    """An unreadable file stays one unit; its worker will say what is wrong with it."""
    try:
        return cut_into_units([file])
    except UnreadableFileError:
        return [Unit(file=file)]


def _check_first_readable(files: Sequence[SourceFile], request: PredictRequest) -> None:
    errors = []
    for file in files:
        try:
            schema = read_schema(file)
        except UnreadableFileError as error:
            errors.append(error)
            continue
        check_columns(file, schema, [request.text_column, *(request.columns or ())])
        _check_types(file, schema, request)
        return
    raise errors[0]


def _check_types(file: SourceFile, schema: pa.Schema, request: PredictRequest) -> None:
    kind = schema.field(request.text_column).type
    if not is_text_type(kind):
        raise UserError(f"Column {request.text_column!r} of {file.path} holds {kind}, not text.")
    kept = schema.names if request.columns is None else request.columns
    refuse_clash(file.path, kept, PREDICTED if request.top_k is None else (*PREDICTED, *TOP_K))


def _claim(output: Path, settings: PredictionSettings) -> None:
    """Make the output directory this run's, or see that it is.

    Raises:
        UserError: another model or other settings began it; says what differs.
    """
    recorded = read_identity(output / MANIFEST_FILE)
    if recorded is None:
        _write_manifest(output, settings, [], [])
    else:
        check_same(output, recorded.get("settings", {}), plain(settings))
    remove_leftovers(output)
    (output / SUCCESS_FILE).unlink(missing_ok=True)


def _finished_parts(
    units: Sequence[Unit], output: Path, settings: PredictionSettings
) -> dict[str, Part]:
    """Parts that are there, whole, and of just these units and settings."""
    parts = {part_name(unit): (unit, read_part(output / part_name(unit))) for unit in units}
    return {
        name: part
        for name, (unit, part) in parts.items()
        if part is not None and part.matches(unit, settings)
    }


@dataclass(kw_only=True)
class _Run:
    """Predicting the missing units, with what has come of it so far."""

    output: Path
    request: PredictRequest
    settings: PredictionSettings
    on_event: OnEvent
    parts: list[Part] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    working_seconds: float = 0.0

    def predict(self, units: list[Unit], resources: Resources) -> None:
        """Run all units on the cluster; what cannot be read is added to `errors`."""
        with ray_session(resources) as capacity:
            num_workers = capacity.workers(
                resources.num_workers, default=min(capacity.max_workers, len(units))
            )
            self.on_event(Progress("predicting", 0, len(units), f"{num_workers} workers starting"))
            make_work = partial(_make_work, output=self.output, settings=self.settings)
            results = map_units(
                make_work,
                units,
                model=self.request.model,
                num_workers=num_workers,
                capacity=capacity,
            )
            for result in results:
                self._record(result)
                self.on_event(Progress("predicting", self._num_done, len(units), self._speed()))
            self.working_seconds = self._busy_seconds() / num_workers

    def _record(self, result: dict[str, Any]) -> None:
        if "error" in result:
            self.errors.append(result["error"])
        else:
            self.parts.append(Part(**result["part"]))

    @property
    def _num_done(self) -> int:
        return len(self.parts) + len(self.errors)

    def _busy_seconds(self) -> float:
        return sum(part.seconds for part in self.parts)

    def _speed(self) -> str:
        rows = sum(part.rows_out for part in self.parts)
        per_worker = rows / max(self._busy_seconds(), 1e-9)
        return f"{rows:,} rows, {per_worker:,.0f} rows/s a worker"


def _make_work(predictor: Predictor, *, output: Path, settings: PredictionSettings) -> Work:
    writer = PartWriter(predictor, output, settings)
    return lambda unit: {"part": asdict(writer.write(unit))}


def _remove_stale(output: Path, units: Sequence[Unit]) -> None:
    """Remove parts of inputs of this run that are cut differently now, since the input changed."""
    inputs, expected = {unit.file.path for unit in units}, {part_name(unit) for unit in units}
    for path in output.rglob("*.parquet"):
        if str(path.relative_to(output)) not in expected:
            part = read_part(path)
            if part is not None and part.input in inputs:
                path.unlink()


def _write_manifest(
    output: Path, settings: PredictionSettings, parts: Sequence[Part], errors: Sequence[str]
) -> None:
    manifest = {"settings": plain(settings), **_totals(parts), "errors": list(errors)}
    listed = [{k: v for k, v in asdict(part).items() if k != "settings"} for part in parts]
    text = json.dumps({**manifest, "parts": listed}, ensure_ascii=False, indent=1)
    write_text(output / MANIFEST_FILE, text + "\n")


def _totals(parts: Sequence[Part]) -> dict[str, Any]:
    """Sums over the parts, with the figures that show drift."""
    labels, reasons = Counter[str](), Counter[str]()
    for part in parts:
        labels.update(part.label_counts)
        reasons.update(part.rows_without_prediction)
    num_tokens = sum(part.num_tokens for part in parts)
    rows_out = sum(part.rows_out for part in parts)
    return {
        "rows_in": sum(part.rows_in for part in parts),
        "rows_out": rows_out,
        "rows_without_prediction": dict(reasons),
        "label_counts": dict(labels),
        "score_histogram": [
            sum(bins) for bins in zip(*(p.score_histogram for p in parts), strict=True)
        ],
        "unknown_share": sum(part.num_unknown for part in parts) / max(1, num_tokens),
        "truncated_share": sum(part.num_truncated for part in parts) / max(1, rows_out),
    }


def _result(output: Path, parts: Sequence[Part], run: _Run, seconds: float) -> BatchPredictResult:
    totals = _totals(parts)
    working = max(run.working_seconds, 1e-9)
    return BatchPredictResult(
        output=str(output),
        rows_in=totals["rows_in"],
        rows_out=totals["rows_out"],
        rows_without_prediction=sum(totals["rows_without_prediction"].values()),
        parts_written=len(run.parts),
        parts_reused=len(parts) - len(run.parts),
        seconds=seconds,
        rows_per_second=sum(part.rows_out for part in run.parts) / working,
        tokens_per_second=sum(part.num_tokens for part in run.parts) / working,
    )
