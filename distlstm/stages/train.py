"""`distlstm train`: encodes the data, trains data-parallel with Ray Train, and writes a MODEL.

Modules that need torch are imported late: importing torch takes 1.5 seconds, and runs while Ray
starts.
"""

import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import CorpusSpec
from distlstm.data.text_corpus import TextCorpusSpec
from distlstm.errors import UserError
from distlstm.model.metadata import METADATA_FILE, load_metadata
from distlstm.stages.pretraining.texts import TextRequest, prepare_texts
from distlstm.stages.run.events import Event, FirstStep, Note, OnEvent
from distlstm.stages.run.files import BEST, CHECKPOINTS, HISTORY_FILE
from distlstm.stages.run.output import Identity, State, Work, flat, opened, writing
from distlstm.stages.run.results import TrainResult
from distlstm.stages.run.session import Capacity, Resources, ray_session
from distlstm.stages.run.start_up import Stopwatch
from distlstm.stages.training.history import read_history
from distlstm.stages.training.labelled_data import (
    DataRequest,
    check_first_file,
    check_outside,
    check_vectors,
    check_weights,
    encoding_in_background,
    prepare_corpus,
)
from distlstm.stages.training.model_output import model_output
from distlstm.storage import Directory, WorkingCopy
from distlstm.worker_range import WorkerRange

if TYPE_CHECKING:
    from distlstm.stages.training.run import TrainingRun

_LANGUAGE_MODEL = "language_model"
_DEFAULT_WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What to train, and where to write the model."""

    data: DataRequest
    output: Directory
    config: ExperimentConfig
    resources: Resources
    overwrite: bool = False


def train(request: TrainRequest, *, on_event: OnEvent, began: float | None = None) -> TrainResult:
    """Train a classifier into the output, or resume where the same command stopped.

    On Ctrl-C, a MODEL of the best epoch so far is written to `best/`, and KeyboardInterrupt is
    raised again. `began` is a time of `time.monotonic` from which the start-up is measured.

    Raises:
        UserError: the data is bad, another command began the output or is at work on it, or the
            MODEL to continue from does not fit the config.
        RunError: training diverged, or workers died too often.
    """
    started, watch = time.perf_counter(), Stopwatch(began)
    watch.end("imports")
    spec = request.data.find(request.config, on_event=on_event)
    texts = _texts(request, spec, on_event)
    if request.data.init is not None:
        from distlstm.stages.training.initial_model import check_apart

        check_apart(request.data.init, request.output)
    check_outside(spec.files, request.output)
    check_first_file(spec)
    check_vectors(spec, request.config)
    with closing(WorkingCopy(request.output, last=[METADATA_FILE])) as copy:
        return _trained(request, spec, texts, copy, watch, on_event, started)


def _texts(request: TrainRequest, spec: CorpusSpec, on_event: OnEvent) -> TextCorpusSpec | None:
    """The texts of the language model: the rows without labels, and those of the training split."""
    data = request.data
    if not data.unlabelled:
        return None
    if data.init is not None:
        raise UserError(
            "--init and --unlabelled exclude each other: a training begins from an earlier model, "
            "or from a language model of unlabelled rows."
        )
    asked = TextRequest(unlabelled=data.unlabelled, column=data.columns.text, reader=data.reader)
    texts = replace(
        asked.find(request.config, on_event=on_event),
        labelled=spec.training,
        held_out_fraction=spec.validation_fraction,
    )
    check_outside(texts.files, request.output)
    return texts


def _trained(
    request: TrainRequest,
    spec: CorpusSpec,
    texts: TextCorpusSpec | None,
    copy: WorkingCopy,
    watch: Stopwatch,
    on_event: OnEvent,
    started: float,
) -> TrainResult:
    """Do what is left to do on the output."""
    location = request.output.location
    output = model_output(copy, _identity(spec, texts, request.config))

    with opened(output, overwrite=request.overwrite, on_event=on_event) as work:
        if work.state is State.FINISHED:
            on_event(Note(f"{location} is already trained by this very command; nothing to do."))
        else:
            if work.state is State.RESUMED:
                on_event(Note(f"Resuming {location}."))
            _train(request, spec, texts, copy, work, output.identity, watch, on_event)
        for unfinished in (BEST, CHECKPOINTS):  # a killed command may have left it, too
            copy.delete(unfinished)
        resumed = work.state is not State.NEW
        metadata = load_metadata(copy.path)
        return _result(location, copy.path, metadata, started, resumed=resumed)


def _train(
    request: TrainRequest,
    spec: CorpusSpec,
    texts: TextCorpusSpec | None,
    copy: WorkingCopy,
    work: Work,
    identity: Identity,
    watch: Stopwatch,
    on_event: OnEvent,
) -> None:
    """Train into a locked output."""
    resources, config, init = request.resources, request.config, request.data.init
    unfinished = copy.storage.below(CHECKPOINTS)
    run: TrainingRun | None = None
    try:
        with (
            _importing_torch(),
            encoding_in_background(spec, unfinished, on_event, at_once=texts is None) as encoded,
            ray_session(resources, on_event) as capacity,
        ):
            watch.end("Ray")
            # Imports torch; the corpus is encoded meanwhile.
            from distlstm.stages.training import run as training

            workers = capacity.workers(resources.workers, default=_DEFAULT_WORKERS)
            if texts is None:
                corpus = encoded()
            else:
                init = _language_model(texts, config, unfinished, work, capacity, workers, on_event)
                from distlstm.stages.training.initial_model import inherit

                grown = replace(spec, inherited=inherit(init, config))
                corpus = prepare_corpus(grown, unfinished, on_event)
            check_weights(corpus, config)
            watch.end("encoding")
            run = training.TrainingRun(
                corpus=corpus,
                config=config,
                init=init,
                output=copy,
                work=work,
                identity=identity,
            )
            run.train(capacity, workers, _timed(watch, on_event))
    except KeyboardInterrupt:
        if run is not None:
            run.keep_best(on_event)
        raise


def _language_model(
    texts: TextCorpusSpec,
    config: ExperimentConfig,
    unfinished: Directory,
    work: Work,
    capacity: Capacity,
    workers: WorkerRange,
    on_event: OnEvent,
) -> Directory:
    """Learn the language model of `--unlabelled`, or go on with it; its directory."""
    from distlstm.stages.pretraining.run import PretrainingRun

    directory = unfinished.below(_LANGUAGE_MODEL)
    if not directory.exists(METADATA_FILE):
        run = PretrainingRun(
            corpus=prepare_texts(texts, unfinished, on_event),
            config=config,
            time_budget=None,
            checkpoints=directory.below(CHECKPOINTS),
            check=work.check,
            identity={},
        )
        with closing(WorkingCopy(directory, last=[METADATA_FILE])) as copy:
            run.train(copy.path, capacity, workers, on_event)
            with writing(directory):
                copy.publish()
    return directory


@contextmanager
def _importing_torch() -> Iterator[None]:
    """Import torch in a thread during a block; another import of torch waits for it."""
    with ThreadPoolExecutor(max_workers=1) as background:
        background.submit(import_module, "torch")
        yield


def _timed(watch: Stopwatch, on_event: OnEvent) -> OnEvent:
    """Add the phases before the workers to a worker's `FirstStep` event, and report it once."""

    def handle(event: Event) -> None:
        if isinstance(event, FirstStep):
            if "workers" in watch.parts:  # these workers replace others that died
                return
            watch.end_with("workers", event.seconds)
            event = FirstStep(watch.parts)
        on_event(event)

    return handle


def _identity(spec: CorpusSpec, texts: TextCorpusSpec | None, config: ExperimentConfig) -> Identity:
    tables = asdict(config)
    del tables["search"]
    if texts is None:
        del tables["pretraining"]
        return flat({**tables, **spec.identity})
    return flat({**tables, **texts.identity, **spec.identity})


def _result(
    location: str, path: Path, metadata: Mapping[str, Any], started: float, *, resumed: bool
) -> TrainResult:
    history = read_history(path / HISTORY_FILE)
    training_seconds = sum(row["seconds"] for row in history)
    return TrainResult(
        model=location,
        metrics=metadata["metrics"],
        epochs=len(history),
        steps=sum(row["steps"] for row in history),
        seconds=time.perf_counter() - started,
        tokens_per_second=sum(row["num_tokens"] for row in history) / max(training_seconds, 1e-9),
        resumed=resumed,
        metadata=metadata,
    )
