"""`distlstm batch-predict`: predicts every row of the input exactly once.

The output is its own ledger. The footer of a part names its unit, its input file and its model; a
restarted command reads the footers and predicts only the missing units.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

from distlstm.data.files import SourceFile, absolute, snapshots_of
from distlstm.data.lakehouse import DELTA_LOG
from distlstm.data.units import Size, Unit, unit_limit
from distlstm.errors import RunError, UserError
from distlstm.model.metadata import gives_label_sets
from distlstm.reader_options import DETECT, ReaderOptions
from distlstm.stages.prediction.actor_pool import (
    Done,
    GivenUp,
    Looked,
    News,
    bundles_for,
    map_bundles,
)
from distlstm.stages.prediction.delta_output import check_input, commit
from distlstm.stages.prediction.footers import read_parts
from distlstm.stages.prediction.input import cut_input, find_input, trained_on
from distlstm.stages.prediction.ledger import Ledger, read_ledger
from distlstm.stages.prediction.manifest import (
    Drift,
    Run,
    drift_of,
    recorded_limit,
    totals_of,
    write_manifest,
)
from distlstm.stages.prediction.parts import (
    Parts,
    PredictionSettings,
    part_name,
    part_names,
    plain,
    refuse_cut,
)
from distlstm.stages.prediction.progress import Meter, Progress
from distlstm.stages.run.events import Note, OnEvent
from distlstm.stages.run.files import MANIFEST_FILE, SUCCESS_FILE
from distlstm.stages.run.models import fingerprint_at, metadata_of
from distlstm.stages.run.output import Output, State, opened, reading, writing
from distlstm.stages.run.results import BatchPredictResult
from distlstm.stages.run.session import Capacity, Resources, ray_session
from distlstm.storage import Directory
from distlstm.worker_range import WorkerRange

if TYPE_CHECKING:  # imports torch, which this process does not need
    from distlstm.stages.prediction.predictor import Predictor

OutputFormat = Literal["parquet", "delta"]


@dataclass(frozen=True, kw_only=True)
class PredictRequest:
    """What to predict, which columns to write, and where to."""

    inputs: tuple[str, ...]
    model: Directory
    output: Directory
    resources: Resources
    text_column: str | None = None
    """None: the column that the model was trained on."""
    columns: tuple[str, ...] | None = None
    """Input columns to keep; None: all."""
    top_k: int | None = None
    min_score: float | None = None
    reader: ReaderOptions = DETECT
    format: OutputFormat = "parquet"
    """`delta`: the parts are also committed to a Delta table in the output."""
    overwrite: bool = False

    @property
    def is_table(self) -> bool:
        """Whether the output is a Delta table; one that is already stays one."""
        if self.format == "delta":
            return True
        return not self.overwrite and not self.output.below(DELTA_LOG).is_empty()


def batch_predict(request: PredictRequest, *, on_event: OnEvent) -> BatchPredictResult:
    """Predict every row of the inputs, except those that the output has already.

    Raises:
        UserError: the input is bad, the output was made with another model or other settings, or
            another command is at work on it.
        RunError: a file could not be read or a part not written; all other parts are kept.
    """
    started = time.perf_counter()
    model_metadata = metadata_of(request.model)
    settings, files = settings_and_input(request, model_metadata, on_event=on_event)
    run = _Run(
        request=request,
        settings=settings,
        files=files,
        model_metadata=model_metadata,
        on_event=on_event,
    )
    if request.overwrite:
        cut_input(files, unit_limit(files))  # refuses clashing names while the old parts are there
    with opened(run.output, overwrite=request.overwrite, on_event=on_event) as work:
        run.check = work.check
        run.begin()
        try:
            if work.state is not State.FINISHED:
                run.predict()
        except BaseException:
            run.count_unreported()
            raise
        finally:
            run.record()
        run.finish()
    return run.result(time.perf_counter() - started)


def settings_and_input(
    request: PredictRequest, model_metadata: Mapping[str, Any], *, on_event: OnEvent
) -> tuple[PredictionSettings, list[SourceFile]]:
    """The settings that determine the content of the parts, and the input files.

    Raises:
        UserError: the request does not fit the model or the input.
    """
    settings = _settings_of(request, model_metadata)
    files = find_input(request.inputs, settings, request.output.location, on_event=on_event)
    with reading(request.output):
        is_table = request.is_table
    if is_table:
        check_input(files, settings)
    return replace(settings, snapshots=tuple(snapshots_of(files).items())), files


def _settings_of(request: PredictRequest, model_metadata: Mapping[str, Any]) -> PredictionSettings:
    label_sets = gives_label_sets(model_metadata)
    refuse_cut(label_sets=label_sets, top_k=request.top_k, min_score=request.min_score)
    return PredictionSettings(
        model=fingerprint_at(request.model, model_metadata),
        text_column=request.text_column or trained_on(model_metadata).text,
        columns=request.columns,
        top_k=request.top_k,
        min_score=request.min_score,
        label_sets=label_sets,
        reader=request.reader,
    )


@dataclass(kw_only=True)
class _Run:
    """The work of one command on an output, and its results so far."""

    request: PredictRequest
    settings: PredictionSettings
    files: Sequence[SourceFile]
    model_metadata: Mapping[str, Any]
    on_event: OnEvent
    written: Parts = field(default_factory=Parts)
    errors: list[str] = field(default_factory=list)
    worker_seconds: float = 0.0
    num_workers: int = 1
    drift: Drift | None = None
    check: Callable[[], None] = lambda: None
    """Raises a RunError if another command has taken the output over."""

    @property
    def storage(self) -> Directory:
        """The output directory."""
        return self.request.output

    @property
    def output(self) -> Output:
        """The output. Its identity is the settings, as recorded in the footers of the parts."""
        return Output(
            storage=self.storage,
            marks=(MANIFEST_FILE,),
            identity=plain(self.settings),
            recorded=lambda: self.ledger.settings_beside(self.settings),
            is_finished=lambda: not self.missing,
        )

    @cached_property
    def limit(self) -> Size:
        """The size limit of the units: that of earlier runs, if there were any."""
        return recorded_limit(self.storage) or unit_limit(self.files)

    @cached_property
    def units(self) -> list[Unit]:
        """The units of the input."""
        return cut_input(self.files, self.limit)

    @cached_property
    def ledger(self) -> Ledger:
        """The parts that exist when the command begins; the output must be locked."""
        return read_ledger(self.storage, self.units)

    @property
    def missing(self) -> list[Unit]:
        """The units to predict."""
        return [unit for unit in self.units if part_name(unit) not in self.ledger.done]

    def begin(self) -> None:
        """Report the finished parts, and mark the output as unfinished."""
        self.storage.remove_unfinished()
        if self.ledger.done:
            self.on_event(
                Note(f"{len(self.ledger.done)} of {len(self.units)} parts are already done.")
            )
        if self.ledger.stale:
            self.on_event(
                Note(f"{len(self.ledger.stale)} parts are predicted again: their input changed.")
            )
        with writing(self.storage):
            self.storage.delete([SUCCESS_FILE])
        self._write_manifest()

    def predict(self) -> None:
        """Predict the missing units on the cluster; failures are added to `errors`."""
        missing, resources = self.missing, self.request.resources
        meter = Meter(
            num_bytes=sum(unit.num_bytes for unit in missing),
            parts_total=len(self.units),
            parts_reused=len(self.ledger.done),
        )
        self.on_event(meter.look([]))
        with ray_session(resources, self.on_event) as capacity:
            workers = capacity.workers(resources.workers, default=len(missing), waits=True)
            self.num_workers = max(1, min(workers.most, capacity.max_workers))
            self._run_bundles(bundles_for(workers, missing), workers, capacity, meter)
            self.on_event(meter.look([]))

    def _run_bundles(
        self,
        bundles: Sequence[list[Unit]],
        workers: WorkerRange,
        capacity: Capacity,
        meter: Meter,
    ) -> None:
        """Raise a RunError for whatever goes wrong from here on: the finished parts are kept."""
        try:
            for news in map_bundles(
                partial(_PredictWork, output=self.storage, settings=self.settings),
                bundles,
                model=self.request.model,
                workers=workers,
                capacity=capacity,
            ):
                self._take(news, meter)
        except UserError as error:
            raise RunError(str(error)) from error

    def _take(self, news: "News[_Predicted]", meter: Meter) -> None:
        self.check()
        match news:
            case Note():
                self.on_event(news)
            case Looked():
                self.num_workers = max(self.num_workers, news.num_workers)
                self.on_event(
                    meter.look(
                        news.of_bundles,
                        workers=news.num_workers,
                        wanted=news.num_wanted,
                        waiting=news.num_waiting,
                    )
                )
            case GivenUp():
                self.errors.append(news.message)
            case Done(units, result):
                self.worker_seconds += result.seconds
                self.written.update(result.parts)
                self.errors += result.errors
                meter.finished(units, result.parts)

    def count_unreported(self) -> None:
        """Add the parts of workers that were stopped before they could report them."""
        units = {part_name(unit): unit for unit in self.missing}
        with writing(self.storage):
            there = units.keys() & set(part_names(self.storage))
            for part, sums in read_parts(self.storage, sorted(there - self.written.names)):
                if part.matches(units[part.name], self.settings):
                    self.written.add(part, sums)

    def record(self) -> None:
        """Write the manifest, and remove outdated files, whether or not the run succeeded."""
        self.check()
        with writing(self.storage):
            self.storage.delete(self.ledger.stale.names - self.written.names)
        self.storage.remove_unfinished()
        self.drift = drift_of(totals_of(self.parts), self.model_metadata)
        self._write_manifest()

    def finish(self) -> None:
        """Mark the output as complete.

        Raises:
            RunError: it is not complete.
        """
        if self.errors:
            raise RunError(
                f"{len(self.errors)} of {len(self.units)} parts could not be written; the other "
                f"parts are kept. {' '.join(self.errors[:3])}"
            )
        if self.drift is not None:
            self.on_event(Note(str(self.drift)))
        self.check()
        with writing(self.storage):
            if self.request.is_table:
                self._commit()
            self.storage.write(SUCCESS_FILE, "")

    def _commit(self) -> None:
        version = commit(self.storage, sorted(self.all_parts, key=lambda part: part.name))
        if version is not None:
            self.on_event(Note(f"The parts are version {version} of the Delta table."))

    @property
    def all_parts(self) -> Parts:
        """All parts of the output."""
        return Parts.together(self.parts, self.ledger.others)

    @property
    def parts(self) -> Parts:
        """All parts of this run's input."""
        return Parts.together(self.ledger.done, self.written)

    def _write_manifest(self) -> None:
        run = Run(
            inputs=tuple(map(absolute, self.request.inputs)),
            parts_written=len(self.written),
            parts_reused=len(self.ledger.done),
            errors=tuple(self.errors),
        )
        with writing(self.storage):
            write_manifest(self.storage, self.settings, self.all_parts, run, self.limit, self.drift)

    def result(self, seconds: float) -> BatchPredictResult:
        """The result of the command."""
        totals, written = totals_of(self.parts), totals_of(self.written)
        working = max(self.worker_seconds / self.num_workers, 1e-9)
        return BatchPredictResult(
            output=self.storage.location,
            rows_in=totals.rows_in,
            rows_out=totals.rows_out,
            rows_without_prediction=sum(totals.rows_without_prediction.values()),
            parts_written=len(self.written),
            parts_reused=len(self.ledger.done),
            seconds=seconds,
            rows_per_second=written.rows_out / working,
            tokens_per_second=written.num_tokens / working,
            partner_share=totals.partner_share,
        )


@dataclass(frozen=True)
class _Predicted:
    """A worker's result for a bundle."""

    parts: Parts
    errors: list[str]
    seconds: float


class _PredictWork:
    """Writes the parts of bundles; runs in a worker."""

    def __init__(
        self, predictor: "Predictor", *, output: Directory, settings: PredictionSettings
    ) -> None:
        from distlstm.stages.prediction.part_writer import PartWriter

        self.writer = PartWriter(predictor, output, settings)

    def __call__(self, units: Sequence[Unit]) -> _Predicted:
        started = time.perf_counter()
        parts, errors = Parts(), list[str]()
        with writing(self.writer.output):
            for outcome in self.writer.write(units):
                if isinstance(outcome, tuple):
                    parts.add(*outcome)
                else:
                    errors.append(outcome.message)
        return _Predicted(parts, errors, time.perf_counter() - started)

    @property
    def progress(self) -> Progress:
        return self.writer.progress
