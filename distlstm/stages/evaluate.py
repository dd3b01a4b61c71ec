"""`distlstm evaluate`: measures a model on labelled rows that it has not seen."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distlstm.atomic import replace_file
from distlstm.data.files import (
    SourceFile,
    described,
    files_fingerprint,
    find_files,
    snapshots_of,
)
from distlstm.data.labelled import Columns, LabelledRows, each_label, read_labelled
from distlstm.data.units import Unit, cut_into_units, unit_limit
from distlstm.errors import RunError, UserError
from distlstm.json_text import read_json, write_json
from distlstm.model.label_kind import LabelKind, Sums, kind_of
from distlstm.reader_options import DETECT, ReaderOptions
from distlstm.stages.prediction.actor_pool import Done, GivenUp, bundles_for, map_bundles
from distlstm.stages.prediction.input import trained_on
from distlstm.stages.prediction.part_content import answer_field, prediction_columns
from distlstm.stages.prediction.predictor import Predictions, Predictor, rows_at_once
from distlstm.stages.run.events import Note, OnEvent, Progress
from distlstm.stages.run.files import ERRORS_FILE, EVALUATION_FILE, METRICS_FILE
from distlstm.stages.run.models import fingerprint_at, metadata_of
from distlstm.stages.run.output import (
    Identity,
    Output,
    State,
    flat,
    opened,
    read_identity,
    record_identity,
    writing,
)
from distlstm.stages.run.results import EvaluationResult
from distlstm.stages.run.session import Resources, ray_session
from distlstm.storage import Directory, WorkingCopy
from distlstm.text.columns import is_label_set
from distlstm.text.labels import UNKNOWN_LABEL, LabelSet, label_keys, listed

_MAX_ERRORS = 1_000
_MAX_ERROR_CHARACTERS = 2_000


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """Which model to evaluate, and on which rows."""

    data: tuple[str, ...]
    model: Directory
    resources: Resources
    text_column: str | None = None
    """None: the column that the model was trained on; likewise for the label column."""
    label_column: str | None = None
    reader: ReaderOptions = DETECT
    output: Directory | None = None
    overwrite: bool = False


def evaluate(request: EvaluateRequest, *, on_event: OnEvent) -> EvaluationResult:
    """Measure a model on labelled data.

    Labels are compared by `label_keys`; one that the model does not have counts as an error. With
    an output, `metrics.json` and `errors.parquet` are written: the metrics, and the wrongly
    classified rows with the highest scores. For a finished output, the same command has nothing to
    do; a different one is refused.

    Raises:
        UserError: the data is bad or has none of the model's labels, the model is damaged, or the
            output is something else or was made by a different command.
        RunError: a file could not be read, or the output could not be written.
    """
    metadata = metadata_of(request.model)
    files = find_files(request.data, request.reader, on_note=lambda text: on_event(Note(text)))
    request.reader.check_used(file.format for file in files)
    fingerprint = fingerprint_at(request.model, metadata)
    columns = _columns(request, metadata)
    work = partial(_evaluate, request, metadata, files, columns, on_event)
    if request.output is None:
        return work().result
    identity = _identity(fingerprint, files, columns, request.reader)
    with closing(WorkingCopy(request.output, last=[EVALUATION_FILE])) as copy:
        output, location = _output(copy, identity), request.output.location
        with opened(output, overwrite=request.overwrite, on_event=on_event) as on_output:
            if on_output.state is State.FINISHED:
                on_event(Note(f"{location} already has this evaluation; nothing to do."))
                return _read(copy)
            evaluation = work()
            _write(copy, identity, evaluation, data=described(files))
            on_output.publish()
    return evaluation.result


def _columns(request: EvaluateRequest, metadata: Mapping[str, Any]) -> Columns:
    default = trained_on(metadata)
    return replace(
        default,
        text=request.text_column or default.text,
        label=request.label_column or default.label,
    )


def _identity(
    fingerprint: str, files: Sequence[SourceFile], columns: Columns, reader: ReaderOptions
) -> Identity:
    return flat(
        {
            "model": fingerprint,
            "data": files_fingerprint(files),
            "columns": asdict(columns),
            "reader": reader.without_snapshot().given(),
            "snapshots": snapshots_of(files),
        }
    )


def _output(copy: WorkingCopy, identity: Identity) -> Output:
    """`evaluation.json` has the identity, and whether the other files are complete."""
    recorded = cache(partial(read_identity, copy.path / EVALUATION_FILE))

    def run() -> Identity | None:
        if not (copy.path / METRICS_FILE).exists() and recorded() is None:
            return None
        return dict((recorded() or {}).get("run", {}))

    return Output(
        storage=copy.storage,
        copy=copy,
        needed=(METRICS_FILE, EVALUATION_FILE),
        marks=(METRICS_FILE, EVALUATION_FILE),
        identity=identity,
        recorded=run,
        is_finished=lambda: bool((recorded() or {}).get("finished")),
        is_replaced_at_end=True,
    )


@dataclass(frozen=True)
class _Sums:
    """Sums over some rows. In `totals`, unknown labels come after those of the model."""

    unknown_labels: tuple[str, ...]
    totals: Sums
    dropped: Counter[str]
    errors: pa.Table
    """The wrongly classified rows with the highest scores."""

    @classmethod
    def zero(cls, known: LabelSet, kind: LabelKind) -> "_Sums":
        """The sums over no rows."""
        return cls((), kind.zero(len(known)), Counter(), _error_schema(kind).empty_table())

    def plus(self, other: "_Sums", known: LabelSet) -> "_Sums":
        """The sums over the rows of both."""
        unknown = tuple(dict.fromkeys((*self.unknown_labels, *other.unknown_labels)))
        names = LabelSet((*known.names, *unknown))
        totals = self.totals_among(names, known) + other.totals_among(names, known)
        errors = pa.concat_tables([self.errors, other.errors])
        return _Sums(unknown, totals, self.dropped + other.dropped, _most_confident(errors))

    def totals_among(self, names: LabelSet, known: LabelSet) -> Sums:
        """The same totals for the labels `names`, which include all labels of these rows."""
        own = (*known.names, *self.unknown_labels)
        if own == names.names:
            return self.totals
        ids = names.ids_of(pa.array(own, pa.string())).to_pylist()
        return self.totals.renumbered(ids, len(names))


@dataclass(frozen=True)
class _Evaluation:
    """The metrics, and the wrongly classified rows with the highest scores."""

    result: EvaluationResult
    errors: pa.Table


def _evaluate(
    request: EvaluateRequest,
    metadata: Mapping[str, Any],
    files: Sequence[SourceFile],
    columns: Columns,
    on_event: OnEvent,
) -> _Evaluation:
    known, kind = LabelSet(tuple(metadata["labels"])), kind_of(metadata)
    sums = _Sums.zero(known, kind)
    for found in _sums_of_bundles(request, files, columns, on_event):
        sums = sums.plus(found, known)
    names = LabelSet((*known.names, *sorted(sums.unknown_labels)))
    report = kind.report(sums.totals_among(names, known), names.names)
    if report["num_rows"] == 0:
        raise UserError("No row has both a text and a label; there is nothing to evaluate on.")
    _check_any_known(report, known, sums.unknown_labels)
    _note_left_out(sums, on_event)
    return _Evaluation(EvaluationResult(**report), sums.errors)


def _sums_of_bundles(
    request: EvaluateRequest, files: Sequence[SourceFile], columns: Columns, on_event: OnEvent
) -> Iterator[_Sums]:
    """The sums of each bundle of units, when a worker has finished it."""
    units = cut_into_units(files, unit_limit(files))
    resources, num_done = request.resources, 0
    with ray_session(resources, on_event) as capacity:
        workers = capacity.workers(resources.workers, default=len(units), waits=True)
        on_event(Progress("evaluating", 0, len(units), f"{workers} workers starting"))
        for news in map_bundles(
            partial(_EvaluateWork, columns=columns),
            bundles_for(workers, units),
            model=request.model,
            workers=workers,
            capacity=capacity,
        ):
            match news:
                case Note():
                    on_event(news)
                case GivenUp():
                    raise RunError(news.message)
                case Done(of_units, sums):
                    num_done += len(of_units)
                    on_event(Progress("evaluating", num_done, len(units)))
                    yield sums


@dataclass(frozen=True)
class _Piece:
    """Texts and labels of some rows."""

    texts: pa.Array
    labels: pa.Array


def _pieces(rows: LabelledRows, size: int) -> Iterator[_Piece]:
    for start in range(0, len(rows.labels), size):
        yield _Piece(rows.texts.slice(start, size), rows.labels.slice(start, size))


class _EvaluateWork:
    """Evaluates the rows of bundles in pieces; runs in a worker."""

    progress = None

    def __init__(self, predictor: Predictor, *, columns: Columns) -> None:
        self.predictor = predictor
        self.columns = columns

    def __call__(self, units: Sequence[Unit]) -> _Sums:
        known, kind = self.predictor.model.labels, self.predictor.model.kind
        sums = _Sums.zero(known, kind)
        for unit in units:
            for rows in read_labelled(unit, self.columns):
                _check_kind(rows, unit, self.columns, kind)
                sums.dropped.update(rows.dropped)
                for piece in _pieces(rows, rows_at_once(len(known))):
                    sums = sums.plus(self._evaluate_piece(piece, unit), known)
        return sums

    def _evaluate_piece(self, rows: _Piece, unit: Unit) -> _Sums:
        known, kind = self.predictor.model.labels, self.predictor.model.kind
        predictions = self.predictor(rows.texts)
        found = pc.unique(each_label(rows.labels))
        is_unknown = pc.equal(known.ids_of(found), UNKNOWN_LABEL)
        unknown = tuple(pc.unique(label_keys(found.filter(is_unknown))).to_pylist())
        names = LabelSet((*known.names, *unknown))
        return _Sums(
            unknown,
            _totals(predictions.probabilities, rows.labels, names, kind),
            Counter(),
            _most_confident(_wrong_rows(rows, predictions, known, kind, unit)),
        )


def _check_kind(rows: LabelledRows, unit: Unit, columns: Columns, kind: LabelKind) -> None:
    if len(rows.labels) and is_label_set(rows.labels.type) != kind.gives_sets:
        raise UserError(
            f"The model gives {kind.description}, but column {columns.label!r} of "
            f"{unit.file.path} has type {rows.labels.type}."
        )


def _totals(probabilities: np.ndarray, labels: pa.Array, names: LabelSet, kind: LabelKind) -> Sums:
    num_unknown = len(names) - probabilities.shape[1]
    padded = np.pad(probabilities.astype(np.float64), ((0, 0), (0, num_unknown)))
    truth = kind.true_labels(labels, names)
    return kind.with_unknown(num_unknown).totals(padded, truth.label_ids, truth.members)


def _error_schema(kind: LabelKind) -> pa.Schema:
    answer = answer_field(kind)
    return pa.schema(
        [
            ("text", pa.string()),
            ("label", answer.type),
            answer,
            ("predicted_score", pa.float32()),
            ("file", pa.string()),
        ]
    )


def _wrong_rows(
    rows: _Piece, predictions: Predictions, known: LabelSet, kind: LabelKind, unit: Unit
) -> pa.Table:
    names = pa.array(known.names, pa.string())
    predicted = prediction_columns(predictions, names, kind)[answer_field(kind).name]
    table = pa.Table.from_arrays(
        [
            pc.utf8_slice_codeunits(rows.texts, 0, _MAX_ERROR_CHARACTERS),
            rows.labels,
            predicted,
            pa.array(predictions.scores.astype(np.float32)),
            pa.array([unit.file.path] * len(rows.texts), pa.string()),
        ],
        schema=_error_schema(kind),
    )
    return table.filter(_differ(rows.labels, predicted, known))


def _differ(truth: pa.Array, predicted: pa.Array, known: LabelSet) -> pa.Array:
    """Whether the labels of two columns differ, by row; the order of lists does not matter."""
    if not is_label_set(truth.type):
        return pc.not_equal(known.ids_of(truth), known.ids_of(predicted))
    true_ids, predicted_ids = (
        pa.ListArray.from_arrays(sets.offsets, known.ids_of(sets.values)).to_pylist()
        for sets in (truth, predicted)
    )
    pairs = zip(true_ids, predicted_ids, strict=True)
    return pa.array([set(ids) != set(others) for ids, others in pairs], pa.bool_())


def _most_confident(errors: pa.Table) -> pa.Table:
    return errors.sort_by([("predicted_score", "descending")]).slice(0, _MAX_ERRORS)


def _note_left_out(sums: _Sums, on_event: OnEvent) -> None:
    if sums.dropped:
        reasons = ", ".join(f"{count:,} with {why}" for why, count in sorted(sums.dropped.items()))
        on_event(Note(f"Rows left out: {reasons}."))
    if sums.unknown_labels:
        names = listed(sorted(sums.unknown_labels))
        text = f"Labels that the model does not have, counted as errors: {names}."
        on_event(Note(text, is_warning=True))


def _check_any_known(
    report: Mapping[str, Any], known: LabelSet, unknown_labels: Sequence[str]
) -> None:
    if unknown_labels and not any(report["per_label"][name]["support"] for name in known.names):
        raise UserError(
            f"The model has none of the labels of the data. The data has "
            f"{listed(sorted(unknown_labels))}; the model has {listed(known.names)}. Check "
            "--label-column and --model."
        )


def _write(copy: WorkingCopy, identity: Identity, evaluation: _Evaluation, *, data: str) -> None:
    """Replace the output; if this is interrupted, the same command does it again."""
    path = copy.path
    with writing(copy.storage):
        _record(path, identity, data=data, finished=False)
        with replace_file(path / ERRORS_FILE) as temporary:
            pq.write_table(evaluation.errors, temporary)
        report = evaluation.result.to_json()
        write_json(path / METRICS_FILE, report)
        _record(path, identity, data=data, finished=True)


def _record(path: Path, identity: Identity, *, data: str, finished: bool) -> None:
    record = {"run": identity, "data": data, "finished": finished}
    record_identity(path / EVALUATION_FILE, record)


def _read(copy: WorkingCopy) -> EvaluationResult:
    file = copy.path / METRICS_FILE
    try:
        return EvaluationResult(**read_json(file))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"{copy.storage.at(METRICS_FILE)} is damaged: {error}. Run again with --overwrite."
        ) from error
