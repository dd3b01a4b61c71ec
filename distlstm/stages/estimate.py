"""`distlstm batch-predict --dry-run`: estimates the time and memory of a run from a sample.

Nothing is written. A worker like those of the run predicts a few rows of some units; the rest is
calculated.
"""

import resource
import time
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

import pyarrow as pa

from distlstm.data.files import SourceFile
from distlstm.data.opening import UnreadableFileError
from distlstm.data.reading import count_rows
from distlstm.data.units import Unit, unit_limit
from distlstm.errors import RunError
from distlstm.stages.batch_predict import PredictRequest, settings_and_input
from distlstm.stages.prediction.actor_pool import Done, map_bundles
from distlstm.stages.prediction.input import cut_input
from distlstm.stages.prediction.ledger import read_ledger
from distlstm.stages.prediction.manifest import recorded_limit
from distlstm.stages.prediction.parts import PredictionSettings, part_name, plain
from distlstm.stages.prediction.windows import WINDOW_BYTES, Rows, read_windows
from distlstm.stages.run.events import Note, OnEvent, Progress
from distlstm.stages.run.files import MANIFEST_FILE
from distlstm.stages.run.models import metadata_of
from distlstm.stages.run.output import check_kind, check_same, reading
from distlstm.stages.run.results import Estimate
from distlstm.stages.run.session import ray_session
from distlstm.worker_range import WorkerRange

if TYPE_CHECKING:  # imports torch
    from distlstm.stages.prediction.predictor import Predictor

_SAMPLED_UNITS = 8
_SAMPLED_ROWS = 2_048
_WARM_UP_ROWS = 256
_MAX_FOOTERS = 1_000
_TEXT_COMPRESSION = 3
_STARTUP_SECONDS = 8.0
"""Time from the start of the command to the first row, measured on two cores."""
_WINDOWS_IN_MEMORY = 5
"""Memory besides the model, in windows: the rows, their texts, tokens, predictions, the output."""


@dataclass(frozen=True)
class Sample:
    """A worker's measurements on some rows."""

    num_rows: int
    num_bytes: float
    """Approximate size on disk."""
    num_tokens: int
    num_unknown: int
    num_truncated: int
    num_without_text: int
    seconds: float
    memory_bytes: int


def estimate(request: PredictRequest, *, on_event: OnEvent) -> Estimate:
    """Count the work to do, measure a sample of it, and estimate time and memory of the whole.

    Raises:
        UserError: in every case in which the run itself would raise it before it starts.
        RunError: the workers died on the sample.
    """
    output, resources = request.output, request.resources
    settings, files = settings_and_input(request, metadata_of(request.model), on_event=on_event)
    with reading(output):
        check_kind(output, marks=(MANIFEST_FILE,))
        units = cut_input(files, recorded_limit(output) or unit_limit(files))
        ledger = read_ledger(output, units)
    check_same(output, ledger.settings_beside(settings) or plain(settings), plain(settings))
    done = ledger.done
    missing = [unit for unit in units if part_name(unit) not in done]
    on_event(Progress("measuring a sample", 0, 1))
    with ray_session(resources, on_event) as capacity:
        default = max(1, len(missing))
        workers = capacity.workers(resources.workers, default=default, waits=True)
        news = map_bundles(
            partial(_SampleWork, settings=settings),
            [_spread(missing or units)],
            model=request.model,
            workers=WorkerRange(1, 1),
            capacity=capacity,
        )
        samples = []
        for entry in news:
            match entry:
                case Note():
                    on_event(entry)
                case Done(_, sample):
                    samples.append(sample)
    if not samples:
        raise RunError("The workers died on the sample, probably out of memory.")
    return _arithmetic(files, units, missing, samples[0], workers.most)


def _spread(units: Sequence[Unit]) -> list[Unit]:
    """A few units at evenly spaced bytes of the input, so large units are more likely."""
    ends = list(accumulate(max(1, unit.num_bytes) for unit in units))
    places = [ends[-1] * (2 * i + 1) // (2 * _SAMPLED_UNITS) for i in range(_SAMPLED_UNITS)]
    chosen = dict.fromkeys(bisect_right(ends, place) for place in places)
    return [units[index] for index in chosen]


def _arithmetic(
    files: Sequence[SourceFile],
    units: Sequence[Unit],
    missing: Sequence[Unit],
    sample: Sample,
    num_workers: int,
) -> Estimate:
    num_bytes = sum(file.size for file in files)
    counted = _count_parquet(files)
    rows_per_byte = sample.num_rows / max(1.0, sample.num_bytes)
    rows = round(num_bytes * rows_per_byte) if counted is None else counted
    share_missing = sum(unit.num_bytes for unit in missing) / max(
        1, sum(unit.num_bytes for unit in units)
    )
    speed = sample.num_rows / max(sample.seconds, 1e-9)
    working = rows * share_missing / (speed * num_workers) if speed else 0.0
    return Estimate(
        files=len(files),
        bytes=num_bytes,
        rows=rows,
        rows_are_exact=counted is not None,
        parts=len(units),
        parts_done=len(units) - len(missing),
        sampled_rows=sample.num_rows,
        tokens_per_row=sample.num_tokens / max(1, sample.num_rows),
        unknown_share=sample.num_unknown / max(1, sample.num_tokens),
        truncated_share=sample.num_truncated / max(1, sample.num_rows),
        rows_without_text=sample.num_without_text,
        rows_per_second_per_worker=speed,
        workers=num_workers,
        seconds=_STARTUP_SECONDS + working if missing else 0.0,
        worker_memory_bytes=sample.memory_bytes + _WINDOWS_IN_MEMORY * WINDOW_BYTES,
    )


def _count_parquet(files: Sequence[SourceFile]) -> int | None:
    """The total number of rows; None if a file does not record it, or there are too many files."""
    if len(files) > _MAX_FOOTERS or not all(file.is_parquet for file in files):
        return None
    try:
        return sum(map(count_rows, files))
    except UnreadableFileError:
        return None


class _SampleWork:
    """Measures the prediction of the first rows of some units; runs in a worker."""

    progress = None

    def __init__(self, predictor: "Predictor", *, settings: PredictionSettings) -> None:
        self.predictor = predictor
        self.settings = settings

    def __call__(self, units: Sequence[Unit]) -> Sample:
        texts, num_bytes = [pa.array([], pa.string())], 0.0
        for unit in units:
            window = next(read_windows([unit], self.settings, max_rows=1))
            for piece in window.pieces:
                if isinstance(piece, Rows):
                    taken = piece.texts.texts.slice(0, _SAMPLED_ROWS // len(units))
                    texts.append(taken)
                    num_bytes += _bytes_on_disk(piece, len(taken))
        return self._measure(pa.concat_arrays(texts), num_bytes)

    def _measure(self, texts: pa.Array, num_bytes: float) -> Sample:
        self.predictor(texts.slice(0, _WARM_UP_ROWS))
        started = time.perf_counter()
        predictions = self.predictor(texts)
        return Sample(
            num_rows=len(texts),
            num_bytes=num_bytes,
            num_tokens=int(predictions.num_tokens.sum()),
            num_unknown=int(predictions.num_unknown.sum()),
            num_truncated=int(predictions.is_truncated.sum()),
            num_without_text=int((~predictions.has_text).sum()),
            seconds=time.perf_counter() - started,
            memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )


def _bytes_on_disk(piece: Rows, num_rows: int) -> float:
    """The approximate size of the first rows of a piece in their file."""
    unit = piece.unit
    if unit.file.is_parquet:
        rows_of_unit = count_rows(unit.file) / unit.num_units
        return unit.num_bytes * num_rows / max(1.0, rows_of_unit)
    factor = _TEXT_COMPRESSION if unit.file.compression else 1
    return float(piece.batch.slice(0, num_rows).nbytes) / factor
