"""`distlstm train`: encode once, train data-parallel with Ray Train, write a MODEL directory.

What needs torch is imported late: torch alone takes a second and a half, and is there by the time
Ray has started.
"""

import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import CorpusSpec
from distlstm.errors import UserError
from distlstm.model.metadata import METADATA_FILE, load_metadata
from distlstm.stages.run.events import Event, FirstStep, Note, OnEvent
from distlstm.stages.run.files import BEST, CHECKPOINTS, HISTORY_FILE
from distlstm.stages.run.output import (
    Identity,
    check_output,
    check_same,
    flat,
    read_identity,
    record_identity,
    remove_content,
    sole_use,
    withdraw,
)
from distlstm.stages.run.session import Resources, ray_session
from distlstm.stages.run.start_up import Stopwatch
from distlstm.stages.training.history import read_history
from distlstm.stages.training.labelled_data import (
    DataRequest,
    check_first_file,
    check_vectors,
    check_weights,
    encoding_in_background,
)

if TYPE_CHECKING:
    from distlstm.stages.training.run import TrainingRun

_RUN_FILE = "run.json"
_DEFAULT_WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """What `train` reports; the keys of its `--json` result."""

    model: str
    metrics: dict[str, float]
    epochs: int
    steps: int
    seconds: float
    tokens_per_second: float
    """Of the training steps, over all workers."""
    resumed: bool


def train(
    data: DataRequest,
    *,
    output: Path,
    config: ExperimentConfig,
    resources: Resources,
    overwrite: bool,
    on_event: OnEvent,
    began: float | None = None,
) -> TrainResult:
    """Train a classifier into `output`, or carry on where the same command stopped.

    On Ctrl-C the best epoch so far is written to `best/`, where it does not make the training look
    finished, before KeyboardInterrupt goes on. The parts of the way to the first step are told
    from `began` on, a time of `time.monotonic`.

    Raises:
        UserError: bad data, an output that another command began or is at work on, or a MODEL to
            go on from that does not fit the config.
        RunError: training diverged, or workers died too often.
    """
    started, watch = time.perf_counter(), Stopwatch(began)
    watch.end("imports")
    output = output.absolute()
    spec = data.find(config)
    if data.init is not None:
        from distlstm.stages.training.initial_model import check_apart

        check_apart(data.init, output)
    check_output(output, marks=(METADATA_FILE, CHECKPOINTS), overwrite=False)
    check_first_file(spec)
    check_vectors(spec, config)
    with sole_use(output):
        if overwrite:
            remove_content(output)
        resumed = _train(
            spec,
            output=output,
            config=config,
            init=data.init,
            resources=resources,
            watch=watch,
            on_event=on_event,
        )
        return _result(output, started, resumed=resumed)


def _train(
    spec: CorpusSpec,
    *,
    output: Path,
    config: ExperimentConfig,
    init: Path | None,
    resources: Resources,
    watch: Stopwatch,
    on_event: OnEvent,
) -> bool:
    """Train into an output that is held; returns whether some or all of it was done before."""
    identity = _identity(spec, config)
    if (output / METADATA_FILE).exists():
        check_same(output, load_metadata(output).get("run", {}), identity)
        on_event(Note(f"{output} is already trained by this very command; nothing to do."))
        return True
    resumed = _begin(output, identity)
    if resumed:
        on_event(Note(f"Carrying on with {output}."))
    run: TrainingRun | None = None
    try:
        with (
            _importing_torch(),
            encoding_in_background(spec, output / CHECKPOINTS, on_event) as encoded,
            ray_session(resources) as capacity,
        ):
            watch.end("Ray")
            from distlstm.stages.training import run as training_run  # while the corpus is encoded

            num_workers = capacity.workers(resources.num_workers, default=_DEFAULT_WORKERS)
            corpus = encoded()
            check_weights(corpus, config)
            watch.end("encoding")
            run = training_run.TrainingRun(
                corpus=corpus, config=config, init=init, output=output, identity=identity
            )
            run.train(capacity, num_workers, _timed(watch, on_event))
    except UserError:
        if not resumed:
            withdraw(output)
        raise
    except KeyboardInterrupt:
        if run is not None:
            run.keep_best(on_event)
        raise
    shutil.rmtree(output / BEST, ignore_errors=True)
    shutil.rmtree(output / CHECKPOINTS)
    return resumed


@contextmanager
def _importing_torch() -> Iterator[None]:
    """Import torch while a block begins; a later import waits for it."""
    with ThreadPoolExecutor(max_workers=1) as aside:
        aside.submit(import_module, "torch")
        yield


def _timed(watch: Stopwatch, on_event: OnEvent) -> OnEvent:
    """Complete a worker's account of the way to the first step with what came before it."""

    def handle(event: Event) -> None:
        if isinstance(event, FirstStep):
            if "workers" in watch.parts:  # and these are others, in place of some that died
                return
            watch.end_with("workers", event.seconds)
            event = FirstStep(watch.parts)
        on_event(event)

    return handle


def _identity(spec: CorpusSpec, config: ExperimentConfig) -> Identity:
    tables = asdict(config)
    del tables["search"]
    return flat({**tables, **spec.identity})


def _begin(output: Path, identity: Identity) -> bool:
    """Record whose output this is; returns whether it was begun before."""
    run_file = output / CHECKPOINTS / _RUN_FILE
    recorded = read_identity(run_file)
    if recorded is None:
        record_identity(run_file, identity)
        return False
    check_same(output, recorded, identity)
    return True


def _result(output: Path, started: float, *, resumed: bool) -> TrainResult:
    history = read_history(output / HISTORY_FILE)
    training_seconds = sum(row["seconds"] for row in history)
    return TrainResult(
        model=str(output),
        metrics=load_metadata(output)["metrics"],
        epochs=len(history),
        steps=sum(row["steps"] for row in history),
        seconds=time.perf_counter() - started,
        tokens_per_second=sum(row["num_tokens"] for row in history) / max(training_seconds, 1e-9),
        resumed=resumed,
    )
