"""`distlstm train`: encode once, train data-parallel with Ray Train, write a MODEL directory."""

import shutil
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import ray.train
from ray.train.torch import TorchTrainer

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import CorpusSpec, EncodedCorpus
from distlstm.errors import RunError, UserError
from distlstm.model.checkpoint import load_history
from distlstm.model.directory import FACTS_FILE, load_facts
from distlstm.stages.baseline import final_partner, measure_baseline
from distlstm.stages.events import Event, FirstStep, Note, OnEvent, Progress
from distlstm.stages.finish import HISTORY_FILE, read_history, write_model
from distlstm.stages.labelled_data import (
    DataRequest,
    check_first_file,
    check_vectors,
    check_weights,
    encoding_ahead,
)
from distlstm.stages.out_of_memory import memory_advice
from distlstm.stages.output import (
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
from distlstm.stages.session import Capacity, Resources, our_error, ray_session, run_interruptibly
from distlstm.stages.start_up import Stopwatch
from distlstm.stages.tracking import tracked
from distlstm.stages.train_worker import (
    ProgressFollower,
    WorkerFailure,
    WorkerSettings,
    train_worker,
)
from distlstm.stages.training_job import Calibration
from distlstm.stages.unfinished import RAY_RUN, finished_epochs, write_best_so_far
from distlstm.stages.warm_start import check_apart

CHECKPOINTS, BEST = "checkpoints", "best"
_RUN_FILE = "run.json"
_MAX_FAILURES = 3
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
        check_apart(data.init, output)
    check_output(output, marks=(FACTS_FILE, CHECKPOINTS), overwrite=False)
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
    if (output / FACTS_FILE).exists():
        check_same(output, load_facts(output).get("run", {}), identity)
        on_event(Note(f"{output} is already trained by this very command; nothing to do."))
        return True
    resumed = _begin(output, identity)
    if resumed:
        on_event(Note(f"Carrying on with {output}."))
    run: _Run | None = None
    try:
        with (
            encoding_ahead(spec, output / CHECKPOINTS, on_event) as encoded,
            ray_session(resources) as capacity,
        ):
            watch.end("Ray")
            num_workers = capacity.workers(resources.num_workers, default=_DEFAULT_WORKERS)
            corpus = encoded()
            check_weights(corpus, config)
            watch.end("encoding")
            run = _Run(corpus=corpus, config=config, init=init, output=output, identity=identity)
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


@dataclass(frozen=True, kw_only=True)
class _Run:
    """A training whose corpus is encoded."""

    corpus: EncodedCorpus
    config: ExperimentConfig
    init: Path | None
    output: Path
    identity: Identity

    def train(self, capacity: Capacity, num_workers: int, on_event: OnEvent) -> None:
        """Train on the cluster, measure the baseline, write the model."""
        settings = WorkerSettings(
            corpus=self.corpus.path,
            config=self.config,
            init=None if self.init is None else self.init.absolute(),
            progress_file=self.output / CHECKPOINTS / "progress.jsonl",
            cpus_per_worker=capacity.cpus_per_worker,
        )
        on_event(Progress(f"starting {num_workers} workers", 0, 1))
        finished = finished_epochs(self.output / CHECKPOINTS)
        with tracked(
            self.output, settings=self.identity, finished=finished, on_event=on_event
        ) as tracking:
            checkpoint, calibration = _fit(settings, num_workers, capacity, tracking)
        on_event(Progress("measuring the linear baseline", 0, 1))
        baseline = measure_baseline(self.corpus)
        linear = final_partner(self.corpus, self.config)
        on_event(Progress("measuring the linear baseline", 1, 1))
        write_model(
            self.output,
            checkpoint=checkpoint,
            history=load_history(checkpoint),
            corpus=self.corpus,
            config=self.config,
            calibration=calibration,
            linear=linear,
            baseline=baseline,
            run=self.identity,
        )

    def keep_best(self, on_event: OnEvent) -> None:
        """Write the best epoch so far, of an interrupted training, as a MODEL of its own."""
        epoch = write_best_so_far(
            self.output / BEST,
            checkpoints=self.output / CHECKPOINTS,
            corpus=self.corpus,
            config=self.config,
            run=self.identity,
        )
        if epoch is not None:
            on_event(Note(f"The best model so far, of epoch {epoch}, is in {self.output / BEST}."))


def _fit(
    settings: WorkerSettings, num_workers: int, capacity: Capacity, on_event: OnEvent
) -> tuple[Path, Calibration]:
    """Run Ray Train to its end; the same storage path makes it resume by itself."""
    resources = {"CPU": capacity.cpus_per_worker, **({"GPU": 1} if capacity.use_gpu else {})}
    trainer = TorchTrainer(
        train_worker,
        train_loop_config=settings,
        scaling_config=ray.train.ScalingConfig(
            num_workers=num_workers, use_gpu=capacity.use_gpu, resources_per_worker=resources
        ),
        run_config=ray.train.RunConfig(
            name=RAY_RUN,
            storage_path=str(settings.progress_file.parent),
            failure_config=ray.train.FailureConfig(max_failures=_MAX_FAILURES),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
        ),
    )
    follower = ProgressFollower(settings.progress_file)

    def follow() -> None:
        for event in follower.events():
            on_event(event)

    try:
        result = run_interruptibly(trainer.fit, meanwhile=follow)
    except ray.train.TrainingFailedError as error:
        reason = (
            memory_advice(error, tokens_per_batch=settings.config.training.tokens_per_batch)
            or f"Training failed: {_cause(error)}"
        )
        raise our_error(error) or RunError(reason) from error
    outcome: Calibration | WorkerFailure = result.return_value
    if isinstance(outcome, WorkerFailure):
        raise RunError(outcome.message)
    return Path(result.checkpoint.path), outcome


def _cause(error: BaseException) -> str:
    failures = getattr(error, "worker_failures", {})
    causes = [str(failure).strip().split("\n")[-1] for failure in failures.values()]
    return causes[0] if causes else str(error).strip().split("\n")[-1]


def _result(output: Path, started: float, *, resumed: bool) -> TrainResult:
    history = read_history(output / HISTORY_FILE)
    training_seconds = sum(row["seconds"] for row in history)
    return TrainResult(
        model=str(output),
        metrics=load_facts(output)["metrics"],
        epochs=len(history),
        steps=sum(row["steps"] for row in history),
        seconds=time.perf_counter() - started,
        tokens_per_second=sum(row["num_tokens"] for row in history) / max(training_seconds, 1e-9),
        resumed=resumed,
    )
