"""Predicting one unit into one part, inside a worker."""

import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.atomic import replace_file
from distlstm.data.labelled import named
from distlstm.data.reading import BATCH_ROWS, check_columns, read_batches, read_schema
from distlstm.data.units import Unit
from distlstm.errors import UserError
from distlstm.stages.parts import (
    FOOTER_KEY,
    PREDICTED,
    SCORE_BINS,
    TOP_K,
    Part,
    PredictionSettings,
    part_name,
    plain,
    unit_key,
)
from distlstm.stages.predictor import Predictions, Predictor


class PartWriter:
    """Writes parts, one unit at a time, with a model that is loaded once."""

    def __init__(self, predictor: Predictor, output: Path, settings: PredictionSettings) -> None:
        self.predictor = predictor
        self.output = output
        self.settings = settings
        self.label_names = pa.array(predictor.model.labels.names, pa.string())

    def write(self, unit: Unit) -> Part:
        """Read, predict and write one unit; the part appears whole, by rename, or not at all.

        Raises:
            UserError: the file cannot be read, or has not the columns it must have.
        """
        started = time.perf_counter()
        tally = _Tally.zero(len(self.label_names))
        with replace_file(self.output / part_name(unit)) as temporary:
            batches = self._predicted_batches(unit, tally)
            first = next(batches)
            with pq.ParquetWriter(temporary, first.schema, compression="zstd") as writer:
                for batch in chain([first], batches):
                    writer.write_batch(batch)
                part = self._part(unit, tally, time.perf_counter() - started)
                writer.add_key_value_metadata({FOOTER_KEY: json.dumps(asdict(part))})
        return part

    def _predicted_batches(self, unit: Unit, tally: "_Tally") -> Iterator[pa.RecordBatch]:
        """At least one batch, empty if the unit is."""
        schema = read_schema(unit.file)
        check_columns(unit.file, schema, [self.settings.text_column, *self._columns(schema)])
        empty = True
        for batch in read_batches(
            unit.file, columns=self._to_read(), row_groups=unit.row_groups, batch_rows=BATCH_ROWS
        ):
            empty = False
            yield self._predict(unit, batch, tally)
        if empty:
            yield self._predict(unit, _no_rows(schema, self._to_read(), unit), tally)

    def _columns(self, schema: pa.Schema) -> list[str]:
        return schema.names if self.settings.columns is None else list(self.settings.columns)

    def _to_read(self) -> list[str] | None:
        if self.settings.columns is None:
            return None
        return list(dict.fromkeys([*self.settings.columns, self.settings.text_column]))

    def _predict(self, unit: Unit, batch: pa.RecordBatch, tally: "_Tally") -> pa.RecordBatch:
        texts = batch.column(self.settings.text_column)
        predictions = named(self.predictor, texts, self.settings.text_column, unit)
        tally.add(predictions)
        kept = batch.select(self._columns(batch.schema))
        added = self._prediction_columns(predictions)
        refuse_clash(unit.file.path, kept.schema.names, tuple(added))
        schema = kept.schema
        for name, column in added.items():
            schema = schema.append(pa.field(name, column.type))
        return pa.RecordBatch.from_arrays([*kept.columns, *added.values()], schema=schema)

    def _prediction_columns(self, predictions: Predictions) -> dict[str, pa.Array]:
        no_text = ~predictions.has_text
        written = predictions.scores.astype(np.float32)
        unsure = no_text
        if self.settings.min_score is not None:
            unsure = no_text | (np.nan_to_num(written) < self.settings.min_score)
        label_ids = pa.array(predictions.label_ids, mask=unsure)
        scores = pa.array(written, mask=no_text)
        columns = dict(zip(PREDICTED, (self.label_names.take(label_ids), scores), strict=True))
        if self.settings.top_k is not None:
            columns |= self._top_k_columns(
                predictions, min(self.settings.top_k, len(self.label_names))
            )
        return columns

    def _top_k_columns(self, predictions: Predictions, k: int) -> dict[str, pa.Array]:
        known = predictions.has_text
        order = np.argsort(-predictions.probabilities[known], axis=1, kind="stable")[:, :k]
        scores = np.take_along_axis(predictions.probabilities[known], order, axis=1)
        offsets = pa.array(np.concatenate([[0], np.cumsum(known * k)]).astype(np.int32))
        values = (self.label_names.take(pa.array(order.ravel())), scores.ravel().astype(np.float32))
        return {
            name: pa.ListArray.from_arrays(offsets, value, mask=pa.array(~known))
            for name, value in zip(TOP_K, values, strict=True)
        }

    def _part(self, unit: Unit, tally: "_Tally", seconds: float) -> Part:
        counted = tally.label_counts.astype(int).tolist()
        counts = dict(zip(self.label_names.to_pylist(), counted, strict=True))
        return Part(
            name=part_name(unit),
            input=unit.file.path,
            unit=unit_key(unit),
            settings=plain(self.settings),
            rows_in=tally.num_rows,
            rows_out=tally.num_rows,
            rows_without_prediction=dict(tally.missing),
            label_counts=counts,
            score_histogram=tally.histogram.tolist(),
            num_tokens=tally.num_tokens,
            num_unknown=tally.num_unknown,
            num_truncated=tally.num_truncated,
            seconds=seconds,
        )


def refuse_clash(path: str, kept: Iterable[str], added: Iterable[str]) -> None:
    """Raise a UserError if a column to be added is already among those kept."""
    clash = sorted(set(kept) & set(added))
    if clash:
        raise UserError(
            f"{path} already has a column {clash[0]!r}; name the columns to keep with --columns."
        )


@dataclass
class _Tally:
    """Sums over the rows of a unit."""

    label_counts: np.ndarray
    histogram: np.ndarray
    missing: Counter[str] = field(default_factory=Counter)
    num_rows: int = 0
    num_tokens: int = 0
    num_unknown: int = 0
    num_truncated: int = 0

    @classmethod
    def zero(cls, num_labels: int) -> "_Tally":
        return cls(np.zeros(num_labels), np.zeros(SCORE_BINS, np.int64))

    def add(self, predictions: Predictions) -> None:
        known = predictions.has_text
        self.label_counts += np.bincount(
            predictions.label_ids[known], minlength=len(self.label_counts)
        )
        self.histogram += np.histogram(predictions.scores[known], SCORE_BINS, (0, 1))[0]
        self.missing.update(predictions.missing)
        self.num_rows += len(known)
        self.num_tokens += predictions.num_tokens
        self.num_unknown += predictions.num_unknown
        self.num_truncated += predictions.num_truncated


def _no_rows(schema: pa.Schema, columns: list[str] | None, unit: Unit) -> pa.RecordBatch:
    own = [name for name in schema.names if columns or name not in unit.file.partitions]
    fields = [schema.field(name) for name in (columns or own)]
    return pa.RecordBatch.from_pylist([], schema=pa.schema(fields))
