"""Predicts units and writes their parts, inside a worker."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.data.files import has_changed
from distlstm.data.units import Unit
from distlstm.errors import UserError
from distlstm.stages.prediction.footers import footer_of, read_part
from distlstm.stages.prediction.part_content import Tally, prediction_columns
from distlstm.stages.prediction.parts import (
    Part,
    PredictionSettings,
    Sums,
    part_name,
    plain,
    unit_key,
)
from distlstm.stages.prediction.predictor import (
    EncodedTexts,
    Predictions,
    Predictor,
    rows_at_once,
)
from distlstm.stages.prediction.prefetch import prefetch
from distlstm.stages.prediction.progress import Progress
from distlstm.stages.prediction.windows import WINDOW_ROWS, Rows, Unreadable, Window, read_windows
from distlstm.storage import Directory


@dataclass(frozen=True)
class Failure:
    """Why a unit could not be predicted."""

    message: str


@dataclass(frozen=True)
class _Predicted:
    """Rows and their predictions."""

    rows: Rows
    predictions: Predictions

    @property
    def unit(self) -> Unit:
        return self.rows.unit


class PartWriter:
    """Writes parts with a loaded model; another thread may read `progress` meanwhile."""

    def __init__(
        self, predictor: Predictor, output: Directory, settings: PredictionSettings
    ) -> None:
        self.predictor = predictor
        self.output = output
        self.settings = settings
        self.label_names = pa.array(predictor.model.labels.names, pa.string())
        self.progress = Progress()

    def write(self, units: Sequence[Unit]) -> Iterator[tuple[Part, Sums] | Failure]:
        """Predict and write units in order; yields the part or the failure of each.

        A part is complete when it appears. A finished part that a worker wrote before it died is
        kept.

        Raises:
            OSError: a part cannot be written.
        """
        self.progress = Progress()
        missing = []
        for unit in units:
            found = read_part(self.output, part_name(unit))
            if found is not None and found[0].matches(unit, self.settings):
                yield found
            else:
                missing.append(unit)
        for unit, pieces in groupby(self._predict(missing), key=lambda piece: piece.unit):
            try:
                yield self._write(unit, pieces)
            except UserError as error:
                yield Failure(str(error))

    def _predict(self, units: Sequence[Unit]) -> Iterator[_Predicted | Unreadable]:
        """All pieces of the units in order, with the predictions of their rows."""
        for window, texts in self._encoded_windows(units):
            self.progress.complete_rows += window.complete_rows
            self.progress.complete_bytes += window.complete_bytes
            predictions = self.predictor.classify(texts, on_rows=self._count_done)
            start = 0
            for piece in window.pieces:
                if isinstance(piece, Unreadable):
                    yield piece
                    continue
                end = start + piece.batch.num_rows
                yield _Predicted(piece, predictions.take(slice(start, end)))
                start = end
            del window, texts, predictions, piece  # free the memory before the next window
            pa.default_memory_pool().release_unused()

    def _encoded_windows(self, units: Sequence[Unit]) -> Iterator[tuple[Window, EncodedTexts]]:
        max_rows = min(WINDOW_ROWS, rows_at_once(len(self.label_names)))
        windows = (
            (window, self.predictor.encode(window.texts))
            for window in read_windows(units, self.settings, max_rows=max_rows)
        )
        return windows if self.predictor.device.type == "cpu" else prefetch(windows)

    def _count_done(self, rows: float) -> None:
        self.progress.rows_done += rows

    def _write(self, unit: Unit, pieces: Iterable[_Predicted | Unreadable]) -> tuple[Part, Sums]:
        tally = Tally(np.zeros(len(self.label_names)), self.predictor.model.kind)
        with self.output.replacing(part_name(unit)) as temporary:
            batches = self._output_rows(pieces, tally)
            first = next(batches)
            with pq.ParquetWriter(
                temporary, first.schema, compression="zstd", write_page_checksum=True
            ) as writer:
                for batch in chain([first], batches):
                    writer.write_batch(batch)
                if has_changed(unit.file):
                    raise UserError(
                        f"{unit.file.path} changed while it was read. Run the command again."
                    )
                part, sums = self._part(unit, tally), self._sums(tally)
                writer.add_key_value_metadata(footer_of(part, sums))
        return part, sums

    def _output_rows(
        self, pieces: Iterable[_Predicted | Unreadable], tally: Tally
    ) -> Iterator[pa.RecordBatch]:
        for piece in pieces:
            if isinstance(piece, Unreadable):
                raise piece.error
            tally.add(piece.predictions, piece.rows.texts)
            rows = piece.rows.batch
            rows = rows.select(self.settings.kept(rows.schema))
            for name, column in self._added(piece.predictions).items():
                rows = rows.append_column(name, column)
            yield rows

    def _added(self, predictions: Predictions) -> dict[str, pa.Array]:
        return prediction_columns(
            predictions,
            self.label_names,
            self.predictor.model.kind,
            top_k=self.settings.top_k,
            min_score=self.settings.min_score,
        )

    def _part(self, unit: Unit, tally: Tally) -> Part:
        return Part(
            name=part_name(unit),
            input=unit.file.path,
            unit=unit_key(unit),
            settings=plain(self.settings),
            rows_in=tally.num_rows,
            rows_out=tally.num_rows,
            rows_without_prediction=dict(tally.missing),
        )

    def _sums(self, tally: Tally) -> Sums:
        names, counts = self.label_names.to_pylist(), tally.label_counts.astype(int).tolist()
        return Sums(
            label_counts=+Counter(dict(zip(names, counts, strict=True))),  # + leaves out zeros
            score_histogram=tally.histogram.tolist(),
            num_tokens=tally.num_tokens,
            num_unknown=tally.num_unknown,
            num_truncated=tally.num_truncated,
            num_by_partner=tally.num_by_partner,
        )
