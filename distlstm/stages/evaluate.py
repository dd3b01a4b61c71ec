"""`distlstm evaluate`: how good a model is on labelled rows it has not seen."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from distlstm.atomic import replace_file, write_text
from distlstm.data.files import find_files
from distlstm.data.labelled import Columns, LabelledRows, each_label, read_labelled
from distlstm.data.units import Unit, cut_into_units, unit_limit
from distlstm.errors import RunError, UserError
from distlstm.model.directory import load_model
from distlstm.model.label_kind import LabelKind, LabelSets, Sums
from distlstm.stages.prediction.actor_pool import Done, GivenUp, bundles_for, map_bundles
from distlstm.stages.prediction.part_content import label_set_columns
from distlstm.stages.prediction.predictor import Predictions, Predictor
from distlstm.stages.run.events import Note, OnEvent, Progress
from distlstm.stages.run.files import ERRORS_FILE, METRICS_FILE
from distlstm.stages.run.output import check_output
from distlstm.stages.run.session import Resources, ray_session
from distlstm.text.columns import is_label_set
from distlstm.text.labels import LabelSet

_MAX_ERRORS = 1_000
_MAX_ERROR_CHARACTERS = 2_000


@dataclass(frozen=True)
class _BundleResult:
    """What a bundle of units gave. Labels the model does not know stand behind those it does."""

    unknown_labels: list[str]
    totals: Sums
    dropped: Counter[str]
    errors: pa.Table


def evaluate(
    sources: tuple[str, ...],
    *,
    model: Path,
    columns: Columns,
    output: Path | None,
    resources: Resources,
    overwrite: bool,
    on_event: OnEvent,
) -> dict[str, Any]:
    """Judge a model on labelled data; returns the content of `metrics.json`.

    A label the model has never seen counts as an error, since it cannot be predicted. With
    `output`, also writes `metrics.json` and `errors.parquet`, the wrong rows of highest score.

    Raises:
        UserError: bad data, a damaged model, or an output that is something else.
    """
    model = model.absolute()
    loaded = load_model(model)
    labels, kind = loaded.labels, loaded.kind
    files = find_files(sources)
    units = cut_into_units(files, unit_limit(files))
    if output is not None:
        check_output(output.absolute(), marks=(METRICS_FILE,), overwrite=overwrite)
    with ray_session(resources) as capacity:
        num_workers = capacity.workers(
            resources.num_workers, default=min(capacity.max_workers, len(units))
        )
        results = []
        num_done = 0
        on_event(Progress("evaluating", 0, len(units), f"{num_workers} workers starting"))
        for news in map_bundles(
            partial(_EvaluateWork, columns=columns),
            bundles_for(num_workers, units),
            model=model,
            num_workers=num_workers,
            capacity=capacity,
        ):
            match news:
                case GivenUp():
                    raise RunError(news.message)
                case Done(of_units, result):
                    results.append(result)
                    num_done += len(of_units)
                    on_event(Progress("evaluating", num_done, len(units)))
    report = _merge(results, labels, kind)
    _note_dropped(results, on_event)
    if output is not None:
        _write(output.absolute(), report, results)
    return report


class _EvaluateWork:
    """In a worker: judges the rows of bundles."""

    progress = None

    def __init__(self, predictor: Predictor, *, columns: Columns) -> None:
        self.predictor = predictor
        self.columns = columns

    def __call__(self, units: Sequence[Unit]) -> _BundleResult:
        known, kind = self.predictor.model.labels, self.predictor.model.kind
        unknown: dict[str, None] = {}
        dropped: Counter[str] = Counter()
        batches, errors = [], [_error_schema(kind).empty_table()]
        for unit in units:
            for rows in read_labelled(unit, self.columns):
                dropped.update(rows.dropped)
                _check_kind(rows, unit, self.columns, kind)
                predictions = self.predictor(rows.texts)
                found = each_label(rows.labels).to_pylist()
                unknown |= dict.fromkeys(set(found) - set(known.names))
                batches.append((predictions.probabilities, rows.labels))
                errors.append(_wrong_rows(rows, predictions, known, kind, unit))
        names = LabelSet((*known.names, *unknown))
        totals = sum(
            (_totals(probabilities, labels, names, kind) for probabilities, labels in batches),
            start=kind.zero(len(names)),
        )
        errors_table = _most_confident(pa.concat_tables(errors))
        return _BundleResult(list(unknown), totals, dropped, errors_table)


def _error_schema(kind: LabelKind) -> pa.Schema:
    multi = kind.name == "multi"
    labels = pa.list_(pa.string()) if multi else pa.string()
    return pa.schema(
        [
            ("text", pa.string()),
            ("label", labels),
            ("predicted_labels" if multi else "predicted_label", labels),
            ("predicted_score", pa.float32()),
            ("file", pa.string()),
        ]
    )


def _check_kind(rows: LabelledRows, unit: Unit, columns: Columns, kind: LabelKind) -> None:
    if len(rows.labels) and is_label_set(rows.labels.type) != (kind.name == "multi"):
        gives = "sets of labels" if kind.name == "multi" else "one label a row"
        raise UserError(
            f"The model gives {gives}; column {columns.label!r} of {unit.file.path} holds "
            f"{rows.labels.type} values."
        )


def _totals(probabilities: np.ndarray, labels: pa.Array, names: LabelSet, kind: LabelKind) -> Sums:
    num_unknown = len(names) - probabilities.shape[1]
    unknown = np.zeros((len(probabilities), num_unknown))
    if kind.name == "multi":
        if not len(labels):
            return kind.zero(len(names))
        never = LabelSets((*kind.thresholds, *[1.0] * num_unknown))
        all_probabilities = np.concatenate([probabilities, unknown], axis=1)
        return never.totals(all_probabilities, np.zeros(0), names.members_of(labels))
    label_ids = names.ids_of(labels).to_numpy(zero_copy_only=False).astype(np.int64)
    return kind.totals(np.concatenate([probabilities, unknown], axis=1), label_ids, None)


def _wrong_rows(
    rows: LabelledRows, predictions: Predictions, known: LabelSet, kind: LabelKind, unit: Unit
) -> pa.Table:
    if not len(rows.labels):
        return _error_schema(kind).empty_table()
    names = pa.array(known.names, pa.string())
    if kind.name == "multi":
        predicted, _ = label_set_columns(predictions, names, kind).values()
        given = zip(rows.labels.to_pylist(), predicted.to_pylist(), strict=True)
        wrong = pa.array([set(truth) != set(labels) for truth, labels in given])
    else:
        predicted = names.take(pa.array(predictions.label_ids))
        wrong = pc.not_equal(rows.labels, predicted)
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
    return table.filter(wrong)


def _most_confident(errors: pa.Table) -> pa.Table:
    return errors.sort_by([("predicted_score", "descending")]).slice(0, _MAX_ERRORS)


def _merge(results: list[_BundleResult], known: LabelSet, kind: LabelKind) -> dict[str, Any]:
    unknown = sorted({label for result in results for label in result.unknown_labels})
    names = [*known.names, *unknown]
    index = {name: i for i, name in enumerate(names)}
    totals = kind.zero(len(names))
    for result in results:
        own = [*known.names, *result.unknown_labels]
        totals += result.totals.renumbered([index[name] for name in own], len(names))
    report = kind.report(totals, names)
    if report["num_rows"] == 0:
        raise UserError("No row has both a text and a label; there is nothing to evaluate on.")
    return report


def _note_dropped(results: list[_BundleResult], on_event: OnEvent) -> None:
    dropped = sum((result.dropped for result in results), Counter[str]())
    if dropped:
        reasons = ", ".join(f"{count:,} with {why}" for why, count in sorted(dropped.items()))
        on_event(Note(f"Rows left out: {reasons}."))
    unknown = {label for result in results for label in result.unknown_labels}
    if unknown:
        names = ", ".join(map(repr, sorted(unknown)[:5]))
        on_event(Note(f"Labels the model has never seen, counted as errors: {names}."))


def _write(output: Path, report: dict[str, Any], results: list[_BundleResult]) -> None:
    errors = _most_confident(pa.concat_tables(result.errors for result in results))
    with replace_file(output / ERRORS_FILE) as temporary:
        pq.write_table(errors, temporary)
    write_text(output / METRICS_FILE, json.dumps(report, ensure_ascii=False, indent=1) + "\n")
