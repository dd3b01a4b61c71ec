"""`distlstm tune`: Ray Tune runs trials, Optuna proposes and stops them; the best gives a MODEL."""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path, PurePosixPath
from typing import Any
from uuid import uuid4

import ray.tune
from ray.tune.experiment import Trial

from distlstm.atomic import replace_directory, write_text
from distlstm.config import ExperimentConfig, to_toml
from distlstm.data.corpus import CorpusSpec, EncodedCorpus
from distlstm.data.files import described
from distlstm.database_url import database_of
from distlstm.errors import RunError, UserError
from distlstm.model.metadata import METADATA_FILE, load_metadata, model_fingerprint
from distlstm.stages.run.events import Note, OnEvent, Progress, TrialRow, TrialsChanged
from distlstm.stages.run.files import BEST, BEST_CONFIG, EPOCHS_FILE, STUDY_FILE, TRIALS_FILE
from distlstm.stages.run.output import (
    Identity,
    Output,
    State,
    Work,
    flat,
    opened,
    read_identity,
    record_identity,
)
from distlstm.stages.run.ray_storage import checkpoint_at, run_options
from distlstm.stages.run.results import TuneResult
from distlstm.stages.run.session import Resources, ray_session, run_interruptibly
from distlstm.stages.run.waiting import Waiting
from distlstm.stages.training.baseline import linear_model
from distlstm.stages.training.initial_model import check_apart, without_fixed
from distlstm.stages.training.labelled_data import (
    DataRequest,
    check_first_file,
    check_outside,
    check_vectors,
    check_weights,
    prepare_corpus,
)
from distlstm.stages.training.model_writer import write_checkpoint
from distlstm.stages.tuning.database import answering
from distlstm.stages.tuning.mlflow_study import MlflowStudy, mlflow_study
from distlstm.stages.tuning.ray_tune import StudyCallback, StudyScheduler, StudySearcher
from distlstm.stages.tuning.resources import TrialResources, trial_resources, trials_at_once
from distlstm.stages.tuning.study import STORAGE_FILE, STUDY_NAME, Study
from distlstm.stages.tuning.table import choose, worth_keeping, write_epochs, write_trials
from distlstm.stages.tuning.trial import TrialSettings, run_trial
from distlstm.stages.tuning.warm_start import settings_worth_trying
from distlstm.storage import Directory, WorkingCopy

_RAY, _INSIDE = "ray", "-train"
_MAX_NAME = 200


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of a study."""

    time_budget: float | None = None
    """Seconds after which all trials are stopped."""
    concurrency: int | None = None
    """Number of trials at once; None: as many as fit."""


@dataclass(frozen=True, kw_only=True)
class TuneRequest:
    """What to search on, and where to write the study."""

    data: DataRequest
    output: Directory
    config: ExperimentConfig
    resources: Resources
    limits: Limits = field(default_factory=Limits)
    warm_start: Directory | None = None
    """Another STUDY, the best settings of which are tried first."""
    overwrite: bool = False


def tune(request: TuneRequest, *, on_event: OnEvent) -> TuneResult:
    """Search for the best classifier, or resume where the same command stopped.

    The number of trials is not part of the command's identity: a larger number adds trials. On
    Ctrl-C, the best model so far is written to `best/`, and KeyboardInterrupt is raised again.

    Raises:
        UserError: the data is bad, another command began the output or is at work on it, or fewer
            trials fit at once than were asked for.
        RunError: no trial gave a model, or most failed in the same way; the message has the error.
    """
    init = request.data.init
    config = request.config if init is None else without_fixed(request.config, init)
    spec = request.data.find(config, on_event=on_event)
    if init is not None:
        check_apart(init, request.output, what="the language model of --init")
    check_outside(spec.files, request.output)
    if request.warm_start is not None:
        check_apart(request.warm_start, request.output, what="the study of --warm-start")
    check_first_file(spec)
    check_vectors(spec, config)
    _check_space(config, on_event)
    with (
        closing(WorkingCopy(request.output, last=[METADATA_FILE, STUDY_FILE])) as copy,
        answering(config.search.storage),
    ):
        run = _Run(
            copy=copy,
            config=config,
            init=init,
            identity=_identity(spec, config, request.warm_start),
            source=described(spec.training),
            on_event=on_event,
        )
        return _tuned(request, spec, run)


def _tuned(request: TuneRequest, spec: CorpusSpec, run: "_Run") -> TuneResult:
    """Do what is left to do on the study."""
    location = request.output.location
    with opened(run.output, overwrite=request.overwrite, on_event=run.on_event) as run.work:
        state = run.work.state
        if state is State.FINISHED:
            run.note(f"{location} is already finished by this very command; nothing to do.")
            return run.recorded_result()
        if state is State.RESUMED:
            run.note(f"Resuming {location}.")
        run.suggest_first(request.warm_start)
        with mlflow_study(
            run.ray,
            name=PurePosixPath(location).name,
            best=run.path / BEST,
            settings=run.identity,
            on_event=run.on_event,
        ) as run.tracker:
            run.search(spec, request.resources, request.limits)
            return run.finish(resumed=state is State.RESUMED)


def _check_space(config: ExperimentConfig, on_event: OnEvent) -> None:
    """Report the parameters of the space that are not searched; UserError if none is left."""
    fixed = [f"{name} {reason}, and not searched" for name, reason in config.fixed.items()]
    if not config.searched:
        raise UserError(f"{'; '.join(fixed)}; there is nothing else to search in search.space.")
    for each in fixed:
        on_event(Note(f"{each}."))


def _identity(spec: CorpusSpec, config: ExperimentConfig, warm_start: Directory | None) -> Identity:
    tables = config.to_dict()
    del tables["search"]["num_trials"], tables["pretraining"]
    # Who connects to a database, and how, may change; that there is none was not recorded always.
    database = database_of(tables["search"].pop("storage"))
    tables["search"] |= {"storage": database} if database else {}
    warm = {} if warm_start is None else {"warm_start": warm_start.location}
    return flat({**tables, **spec.identity, **warm})


@dataclass(kw_only=True)
class _Run:
    """The work of one command on a study."""

    copy: WorkingCopy
    config: ExperimentConfig
    init: Directory | None
    identity: Identity
    source: str
    """Where the training files are, for people."""
    on_event: OnEvent
    work: Work = field(init=False)
    """Set when the output is locked."""
    started: float = field(default_factory=time.perf_counter)
    corpus: EncodedCorpus | None = None
    tracker: MlflowStudy | None = None
    directory: str | None = None
    """Name of Ray Tune's directory of this command."""

    @property
    def path(self) -> Path:
        """Where the small files of the study are written."""
        return self.copy.path

    @property
    def ray(self) -> Directory:
        """The directories of Ray Tune, by command, with the checkpoints."""
        return self.copy.storage.below(_RAY)

    def note(self, text: str) -> None:
        """Report a sentence."""
        self.on_event(Note(text))

    @property
    def output(self) -> Output:
        """`study.json` has the identity, and the result once the study is finished."""
        return Output(
            storage=self.copy.storage,
            copy=self.copy,
            needed=(STUDY_FILE, STORAGE_FILE, f"{BEST}/"),
            marks=(STUDY_FILE,),
            identity=self.identity,
            recorded=self._recorded,
            is_finished=self._is_finished,
            begin=lambda: self._record(finished=False),
        )

    @cached_property
    def study(self) -> Study:
        """The trials so far; the output must be locked."""
        return Study(self.path, self.config, checkpoints=self.copy.storage, name=self.recorded_name)

    @cached_property
    def recorded_name(self) -> str:
        """The name of the study in its storage.

        In a database, other studies may be of a directory with the same name.
        """
        if not self.config.search.storage:
            return STUDY_NAME
        recorded = (read_identity(self.path / STUDY_FILE) or {}).get("study_name")
        directory = PurePosixPath(self.copy.storage.location).name
        return recorded or f"{directory[:_MAX_NAME]}-{uuid4().hex[:8]}"

    @cached_property
    def _record_found(self) -> dict[str, Any] | None:
        """The content of `study.json` when the command begins."""
        return read_identity(self.path / STUDY_FILE)

    def _recorded(self) -> Identity | None:
        found = self._record_found
        return None if found is None else found.get("run", {})

    def _is_finished(self) -> bool:
        """Whether the result, the trials in the storage and `best/` exist and agree."""
        recorded = self._record_found or {}
        if not recorded.get("finished") or self.study.num_missing:
            return False
        if len(recorded["result"]["trials"]) != len(self.study.rows()):
            return False
        try:
            model_fingerprint(self.path / BEST, load_metadata(self.path / BEST))
        except UserError:
            return False
        return True

    def recorded_result(self) -> TuneResult:
        """The result of the command that finished the study."""
        recorded = self._record_found or {}
        return TuneResult(**{**recorded["result"], "seconds": 0.0, "resumed": True})

    def _record(self, **metadata: Any) -> None:
        record = {"run": self.identity, "data": self.source, "study_name": self.recorded_name}
        record_identity(self.path / STUDY_FILE, {**record, **metadata})

    def suggest_first(self, warm_start: Directory | None) -> None:
        """Queue the settings to try first; those already proposed are not queued again."""
        space = self.study.space
        if self.config.search.algorithm == "grid":
            self.study.suggest_first(space.grid()[: self.study.num_trials])
            return
        own = space.point_of(self.config)
        earlier = [] if warm_start is None else settings_worth_trying(warm_start, space)
        if warm_start is not None:
            self.on_event(
                Note(f"{len(earlier)} settings of {warm_start.location} are tried first.")
            )
        self.study.suggest_first([*earlier, *([own] if own else [])])

    def search(self, spec: CorpusSpec, resources: Resources, limits: Limits) -> None:
        """Run the missing trials; on Ctrl-C, write the best model so far."""
        nested = self.config.training.workers_per_trial > 1
        try:
            with ray_session(replace(resources, with_dashboard=nested), self.on_event) as capacity:
                trial = trial_resources(capacity, self.config.training)
                concurrency = trials_at_once(
                    capacity, trial, resources=resources, concurrency=limits.concurrency
                )
                self.corpus = prepare_corpus(spec, self.copy.storage, self.on_event)
                check_weights(self.corpus, self.config)
                if self.study.num_missing:
                    self._record(finished=False)  # discards the result of fewer trials
                    self.on_event(Progress("fitting the linear model", 0, 1))
                    linear_model(self.corpus)  # fitted once, for all trials
                    self.on_event(Progress("fitting the linear model", 1, 1))
                    self._run_trials(self.corpus, trial, concurrency, limits)
        except KeyboardInterrupt:
            chosen = self._keep_best()
            if chosen is not None:
                self.on_event(Note(f"The best model so far is in {self.copy.storage.at(BEST)}."))
            raise
        finally:
            # Tune's state, also of killed commands; the study does not need it.
            self.ray.delete([e.name for e in self.ray.list() if e.name.count("/") == 1])

    def _run_trials(
        self, corpus: EncodedCorpus, trial: TrialResources, concurrency: int, limits: Limits
    ) -> None:
        directory = self.directory = _next_directory(self.ray)
        settings = TrialSettings(
            corpus=corpus.storage,
            config=self.config,
            init=self.init,
            resources=trial,
            directory=self.ray.below(f"{directory}{_INSIDE}"),
        )
        no_worker = Waiting()

        def step(has_worker: bool) -> None:
            for note in no_worker.notes(f"a trial takes {trial}", has_worker=has_worker):
                self.on_event(note)

        tuner = ray.tune.Tuner(
            ray.tune.with_resources(partial(run_trial, settings=settings), trial.of_tune_process),
            tune_config=ray.tune.TuneConfig(
                search_alg=StudySearcher(self.study),
                scheduler=StudyScheduler(self.study),
                num_samples=-1,  # as many as the study proposes
                max_concurrent_trials=concurrency,
                time_budget_s=limits.time_budget,
                reuse_actors=trial.num_workers == 1,
                trial_dirname_creator=_trial_directory,
            ),
            run_config=ray.tune.RunConfig(
                name=directory,
                **run_options(self.ray),
                callbacks=[StudyCallback(self.study, on_change=self._changed, on_step=step)],
                checkpoint_config=ray.tune.CheckpointConfig(num_to_keep=self._num_checkpoints),
                verbose=0,
            ),
        )
        try:
            run_interruptibly(tuner.fit)
        finally:
            self.study.close()

    @property
    def _num_checkpoints(self) -> int:
        """Of a trial. In an object store, the record may be older by one checkpoint."""
        return 1 if self.copy.storage.is_local else 2

    def _changed(self) -> None:
        rows, search = self._rows(), self.config.search
        self.work.publish()
        self._remove_checkpoints(rows)
        if self.tracker is not None:
            self.tracker.update(rows, self.study.epochs())
        self.on_event(TrialsChanged(rows, self.study.num_trials, search.metric))

    def _rows(self) -> tuple[TrialRow, ...]:
        """The trials, best first; the one whose model goes to `best/` is marked."""
        rows = self.study.rows()
        chosen = choose(rows, self.config.search)
        return tuple(replace(row, is_chosen=row is chosen) for row in rows)

    def _remove_checkpoints(self, rows: Sequence[TrialRow]) -> None:
        """Remove the checkpoints of trials that can no longer be chosen."""
        kept = worth_keeping(rows, self.config.search)
        for command, attempt in set(self._attempts()):
            number = _number_of(attempt)
            if number not in kept or self._is_outdated(command, attempt, int(number)):
                self.ray.delete_below(f"{command}/{attempt}")

    def _attempts(self) -> Iterator[tuple[str, str]]:
        """The directories of commands, and those of attempts in them, by the files there."""
        for entry in self.ray.list():
            command, *below = entry.name.split("/")
            if len(below) > 1 and _number_of(below[0]).isdigit():
                yield command, below[0]

    def _is_outdated(self, command: str, attempt: str, number: int) -> bool:
        """Whether nothing is written there, and its trial's last checkpoint is elsewhere."""
        current = _attempt_directory(number, self.study.attempt(number))
        if (command, attempt) in {
            (self.directory, current),
            (f"{self.directory}{_INSIDE}", str(number)),
        }:
            return False
        checkpoint = self.study.checkpoint(number)
        directory = self.ray.below(f"{command}/{attempt}").location
        return checkpoint is None or not checkpoint.location.startswith(f"{directory}/")

    def finish(self, *, resumed: bool) -> TuneResult:
        """Write the best model and the result of the study.

        Raises:
            RunError: no trial gave a model, or most trials failed in the same way.
        """
        chosen = self._keep_best()
        hopeless = self.study.hopeless
        if hopeless is not None:
            raise RunError(
                f"The study was stopped because most trials fail in the same way: {hopeless}"
            )
        rows = self._rows()
        if chosen is None:
            errors = [row.error for row in rows if row.error]
            reason = errors[0] if errors else "none finished its first epoch."
            raise RunError(f"No trial gave a model: {reason}")
        if self.tracker is not None:
            self.tracker.chosen(chosen)
        result = TuneResult(
            study=self.copy.storage.location,
            best=asdict(chosen),
            trials=[asdict(row) for row in rows],
            seconds=time.perf_counter() - self.started,
            resumed=resumed,
        )
        search = self.config.search
        self._record(
            finished=not self.study.num_missing,
            result=result.to_json(),
            metric=search.metric,
            importance=self.study.importance(),
            preferred={"prefer": search.prefer, "tolerance": search.tolerance},
        )
        self.work.publish()
        return result

    def _keep_best(self) -> TrialRow | None:
        """Write the tables and a MODEL of the chosen trial's checkpoint; returns the trial."""
        rows = self._rows()
        write_trials(self.path / TRIALS_FILE, rows)
        write_epochs(self.path / EPOCHS_FILE, self.study.epochs())
        chosen = next((row for row in rows if row.is_chosen), None)
        checkpoint = None if chosen is None else self.study.checkpoint(int(chosen.trial))
        if chosen is None or checkpoint is None or self.corpus is None:
            self.work.publish()
            return None
        config = self.config.with_values(chosen.parameters)
        new = self.path / f"{BEST}.new"
        shutil.rmtree(new, ignore_errors=True)
        with checkpoint_at(checkpoint).as_directory() as directory:
            write_checkpoint(
                new,
                checkpoint=Path(directory),
                corpus=self.corpus,
                config=config,
                init=self.init,
                run=self.identity,
            )
        replace_directory(new, self.path / BEST)
        write_text(self.path / BEST_CONFIG, to_toml(config))
        self.work.publish()
        return chosen


def _next_directory(ray_directory: Directory) -> str:
    """The name of the next numbered directory; each command's Ray Tune has its own."""
    names = {entry.name.partition("/")[0] for entry in ray_directory.list()}
    return str(max((int(name) for name in names if name.isdigit()), default=0) + 1)


def _trial_directory(trial: Trial) -> str:
    return _attempt_directory(trial.config["number"], trial.config["attempt"])


def _attempt_directory(number: int, attempt: int) -> str:
    """`3` for the first attempt of trial 3, `3.1` for the next: Tune's need different names."""
    return f"{number}.{attempt}" if attempt else str(number)


def _number_of(directory: str) -> str:
    return directory.partition(".")[0]
