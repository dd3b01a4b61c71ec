"""`distlstm batch-predict`: a label for every row, each exactly once.

The output is the ledger. A part's footer says which unit of which input it holds and which model
made it; a restart reads the footers and runs only what is missing.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distlstm.atomic import remove_leftovers, write_text
from distlstm.data.files import absolute
from distlstm.data.units import Size, Unit, unit_limit
from distlstm.errors import RunError, UserError
from distlstm.model.metadata import load_metadata, model_fingerprint
from distlstm.stages.prediction.actor_pool import Done, GivenUp, Looked, bundles_for, map_bundles
from distlstm.stages.prediction.input import cut_input, find_input
from distlstm.stages.prediction.manifest import (
    Drift,
    Run,
    drift_of,
    recorded_limit,
    totals_of,
    write_manifest,
)
from distlstm.stages.prediction.parts import (
    Part,
    PredictionSettings,
    part_name,
    part_names,
    plain,
    read_parts,
)
from distlstm.stages.prediction.progress import Meter, Progress
from distlstm.stages.run.events import Note, OnEvent
from distlstm.stages.run.files import MANIFEST_FILE, SUCCESS_FILE
from distlstm.stages.run.output import check_output, check_same, remove_content, sole_use, writing
from distlstm.stages.run.session import Resources, ray_session

if TYPE_CHECKING:  # which imports torch; this process needs none
    from distlstm.stages.prediction.predictor import Predictor


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
    partner_share: float
    """Of the rows out, those that the linear partner answered alone."""


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
        UserError: bad input, an output that another model or other settings made, or one that
            another command is at work on.
        RunError: a file could not be read or a part not written; all others are done and kept.
    """
    started = time.perf_counter()
    output, request = output.absolute(), replace(request, model=request.model.absolute())
    settings = settings_of(request)
    files = find_input(request.inputs, settings, output)
    check_output(output, marks=(MANIFEST_FILE,), overwrite=False)
    with sole_use(output):
        if overwrite:
            remove_content(output)
        remove_leftovers(output)
        limit = recorded_limit(output) or unit_limit(files)
        units = cut_input(files, limit)
        run = _Run(
            output=output,
            request=request,
            settings=settings,
            limit=limit,
            model_metadata=load_metadata(request.model),
            on_event=on_event,
        )
        run.find_parts(units)
        try:
            run.predict(units, resources)
        except BaseException:
            run.count_unreported(units)
            raise
        finally:
            run.record()
        run.finish(units)
    return run.result(time.perf_counter() - started)


def settings_of(request: PredictRequest) -> PredictionSettings:
    """What decides the content of the parts.

    Raises:
        UserError: the model is damaged, or gives sets of labels, which have no order to cut.
    """
    label_sets = load_metadata(request.model).get("kind") == "multi"
    if label_sets and not (request.top_k is None and request.min_score is None):
        raise UserError(
            "--top-k and --min-score are for models of one label a row; this one writes every "
            "label that reaches its threshold."
        )
    return PredictionSettings(
        model=model_fingerprint(request.model),
        text_column=request.text_column,
        columns=request.columns,
        top_k=request.top_k,
        min_score=request.min_score,
        label_sets=label_sets,
    )


@dataclass(frozen=True)
class Ledger:
    """The parts that an output directory holds."""

    done: dict[str, Part]
    """Whole, and of just the units and settings of this run; by name."""
    stale: dict[str, Part]
    """Of inputs of this run that have changed or are cut differently now."""
    others: dict[str, Part]
    """Of inputs that this run does not have."""


def read_ledger(output: Path, units: Sequence[Unit], settings: PredictionSettings) -> Ledger:
    """Read the footers of all parts.

    Raises:
        UserError: a part was made with another model or other settings, or stands, of another
            input, where this run would write.
    """
    expected = {part_name(unit): unit for unit in units}
    inputs = {unit.file.path for unit in units}
    ledger, wanted = Ledger({}, {}, {}), plain(settings)
    for name, part in read_parts(output, part_names(output)).items():
        check_same(output, part.settings, wanted)
        if name in expected and part.is_of(expected[name]):
            ledger.done[name] = part
        elif part.input in inputs:
            ledger.stale[name] = part
        elif name in expected:
            raise UserError(
                f"{output / name} holds the predictions of {part.input}, not of "
                f"{expected[name].file.path}. Choose another --output for this input."
            )
        else:
            ledger.others[name] = part
    return ledger


@dataclass(kw_only=True)
class _Run:
    """One command's work on an output, with what has come of it so far."""

    output: Path
    request: PredictRequest
    settings: PredictionSettings
    limit: Size
    model_metadata: Mapping[str, Any]
    on_event: OnEvent
    ledger: Ledger = field(default_factory=lambda: Ledger({}, {}, {}))
    written: list[Part] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    worker_seconds: float = 0.0
    num_workers: int = 1
    drift: Drift | None = None

    def find_parts(self, units: Sequence[Unit]) -> None:
        """See what is done; from here on the output is not finished."""
        self.ledger = read_ledger(self.output, units, self.settings)
        if self.ledger.done:
            self.on_event(Note(f"{len(self.ledger.done)} of {len(units)} parts are already done."))
        if self.ledger.stale:
            self.on_event(
                Note(f"{len(self.ledger.stale)} parts are made anew: their input has changed.")
            )
        (self.output / SUCCESS_FILE).unlink(missing_ok=True)
        self._write_manifest()

    def predict(self, units: Sequence[Unit], resources: Resources) -> None:
        """Run what is missing on the cluster; what cannot be read is added to `errors`."""
        missing = [unit for unit in units if part_name(unit) not in self.ledger.done]
        if not missing:
            return
        meter = Meter(
            num_bytes=sum(unit.num_bytes for unit in missing),
            parts_total=len(units),
            parts_reused=len(self.ledger.done),
        )
        self.on_event(meter.look([]))
        with ray_session(resources) as capacity:
            self.num_workers = capacity.workers(
                resources.num_workers, default=min(capacity.max_workers, len(missing))
            )
            for news in map_bundles(
                partial(_PredictWork, output=self.output, settings=self.settings),
                bundles_for(self.num_workers, missing),
                model=self.request.model,
                num_workers=self.num_workers,
                capacity=capacity,
            ):
                self._take(news, meter)

    def _take(self, news: "Done[_Predicted] | GivenUp | Looked", meter: Meter) -> None:
        match news:
            case Looked(of_bundles):
                self.on_event(meter.look(of_bundles))
            case GivenUp():
                self.errors.append(news.message)
            case Done(units, result):
                self.worker_seconds += result.seconds
                self.written += result.parts
                self.errors += result.errors
                num_rows = sum(part.rows_out for part in result.parts)
                meter.finished(units, num_rows=num_rows, num_parts=len(result.parts))

    def count_unreported(self, units: Sequence[Unit]) -> None:
        """Add the parts of workers that were ended before they could report them."""
        known = {part.name for part in self.parts}
        done = read_ledger(self.output, units, self.settings).done
        self.written += [part for name, part in done.items() if name not in known]

    def record(self) -> None:
        """Write down what there is now, however the run went."""
        for name in self.ledger.stale.keys() - {part.name for part in self.written}:
            (self.output / name).unlink(missing_ok=True)
        remove_leftovers(self.output)
        self.drift = drift_of(totals_of(self.parts), self.model_metadata)
        self._write_manifest()

    def finish(self, units: Sequence[Unit]) -> None:
        """Declare the output complete, if it is.

        Raises:
            RunError: it is not.
        """
        if self.errors:
            raise RunError(
                f"{len(self.errors)} of {len(units)} parts could not be written; the others are "
                f"kept. {' '.join(self.errors[:3])}"
            )
        if self.drift is not None:
            self.on_event(Note(str(self.drift)))
        with writing(self.output):
            write_text(self.output / SUCCESS_FILE, "")

    @property
    def parts(self) -> list[Part]:
        """All parts of this run's input, by name."""
        return sorted([*self.ledger.done.values(), *self.written], key=lambda part: part.name)

    def _write_manifest(self) -> None:
        run = Run(
            inputs=tuple(map(absolute, self.request.inputs)),
            parts_written=len(self.written),
            parts_reused=len(self.ledger.done),
            errors=tuple(self.errors),
        )
        everything = sorted([*self.parts, *self.ledger.others.values()], key=lambda p: p.name)
        with writing(self.output):
            write_manifest(self.output, self.settings, everything, run, self.limit, self.drift)

    def result(self, seconds: float) -> BatchPredictResult:
        """What the command reports."""
        totals, written = totals_of(self.parts), totals_of(self.written)
        working = max(self.worker_seconds / self.num_workers, 1e-9)
        return BatchPredictResult(
            output=str(self.output),
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
    """What a worker made of a bundle."""

    parts: list[Part]
    errors: list[str]
    seconds: float


class _PredictWork:
    """In a worker: writes the parts of bundles."""

    def __init__(
        self, predictor: "Predictor", *, output: Path, settings: PredictionSettings
    ) -> None:
        from distlstm.stages.prediction.part_writer import PartWriter

        self.writer = PartWriter(predictor, output, settings)

    def __call__(self, units: Sequence[Unit]) -> _Predicted:
        started = time.perf_counter()
        with writing(self.writer.output):
            outcomes = list(self.writer.write(units))
        return _Predicted(
            parts=[outcome for outcome in outcomes if isinstance(outcome, Part)],
            errors=[outcome.message for outcome in outcomes if not isinstance(outcome, Part)],
            seconds=time.perf_counter() - started,
        )

    @property
    def progress(self) -> Progress:
        return self.writer.progress
