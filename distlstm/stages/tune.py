"""`distlstm tune`: Ray Tune runs trials, Optuna proposes and stops them, the best is a MODEL."""

import json
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import ray.tune
from ray.tune.experiment import Trial

from distlstm.atomic import write_text
from distlstm.config import ExperimentConfig, to_toml
from distlstm.data.corpus import CorpusSpec, EncodedCorpus
from distlstm.errors import RunError, UserError
from distlstm.stages.run.events import Note, OnEvent, Progress, TrialRow, TrialsChanged
from distlstm.stages.run.files import BEST, BEST_CONFIG, EPOCHS_FILE, STUDY_FILE, TRIALS_FILE
from distlstm.stages.run.output import (
    Identity,
    check_output,
    check_same,
    flat,
    read_identity,
    remove_content,
    sole_use,
    withdraw,
)
from distlstm.stages.run.session import Resources, ray_session, run_interruptibly
from distlstm.stages.training.baseline import linear_model
from distlstm.stages.training.labelled_data import (
    DataRequest,
    check_first_file,
    check_vectors,
    check_weights,
    prepare_corpus,
)
from distlstm.stages.training.model_writer import write_checkpoint
from distlstm.stages.tuning.ray_tune import StudyCallback, StudyScheduler, StudySearcher
from distlstm.stages.tuning.resources import TrialResources, trial_resources, trials_at_once
from distlstm.stages.tuning.study import Study
from distlstm.stages.tuning.table import choose, worth_keeping, write_epochs, write_trials
from distlstm.stages.tuning.trial import TrialSettings, run_trial
from distlstm.stages.tuning.warm_start import settings_worth_trying

_RAY, _INSIDE = "ray", "-train"
_MAX_FAILURES = 2


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a study may take."""

    time_budget: float | None = None
    """Seconds after which no trial goes on."""
    concurrency: int | None = None
    """Trials at once; None: as many as fit."""


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """What `tune` reports; the keys of its `--json` result."""

    study: str
    best: dict[str, Any]
    """The trial in `best/`: parameters, and metrics on validation."""
    trials: list[dict[str, Any]]
    """All trials, best first."""
    seconds: float
    resumed: bool


def tune(
    data: DataRequest,
    *,
    output: Path,
    config: ExperimentConfig,
    resources: Resources,
    limits: Limits,
    overwrite: bool,
    on_event: OnEvent,
    warm_start: Path | None = None,
) -> TuneResult:
    """Search for a good classifier into `output`, or carry on where the same command stopped.

    The number of trials is not part of what makes a command the same: a larger one adds trials. On
    Ctrl-C the best so far is written to `best/` before KeyboardInterrupt goes on.

    Args:
        data: what to train and validate on.
        output: the STUDY directory.
        config: the experiment, with its search.
        resources: of the cluster.
        limits: time, and trials at once.
        overwrite: replace a study that is there.
        on_event: told of every change.
        warm_start: another STUDY, whose best settings are tried first.

    Raises:
        UserError: bad data, an output that another command began or is at work on, or more trials
            at once than fit.
        RunError: every trial failed, or most in the same way; says the error.
    """
    started = time.perf_counter()
    output = output.absolute()
    spec = data.find(config)
    identity = _identity(spec, config, warm_start)
    check_output(output, marks=(STUDY_FILE,), overwrite=False)
    check_first_file(spec)
    check_vectors(spec, config)
    _check_space(config, on_event)
    with sole_use(output):
        if overwrite:
            remove_content(output)
        recorded = _begin(output, identity)
        run = _Run(
            output=output,
            config=config,
            identity=identity,
            study=Study(output, config),
            on_event=on_event,
            resumed=recorded is not None,
            started=started,
        )
        if recorded is not None and recorded.get("finished") and not run.study.num_missing:
            on_event(Note(f"{output} is already finished by this very command; nothing to do."))
            return TuneResult(**{**recorded["result"], "seconds": 0.0, "resumed": True})
        return run.complete(spec, warm_start, resources, limits)


def _check_space(config: ExperimentConfig, on_event: OnEvent) -> None:
    """Say what is not searched though the space has it; raises UserError if that is all."""
    fixed = [f"{name} {reason}, and not searched" for name, reason in config.fixed.items()]
    if not config.searched:
        raise UserError(f"{'; '.join(fixed)}; there is nothing else to search in search.space.")
    for each in fixed:
        on_event(Note(f"{each}."))


def _begin(output: Path, identity: Identity) -> Identity | None:
    """Record whose study this is; returns what was recorded before, if it is not new."""
    recorded = read_identity(output / STUDY_FILE)
    if recorded is None:
        _record(output, {"run": identity, "finished": False})
    else:
        check_same(output, recorded.get("run", {}), identity)
    return recorded


def _identity(spec: CorpusSpec, config: ExperimentConfig, warm_start: Path | None) -> Identity:
    tables = config.to_dict()
    del tables["search"]["num_trials"]
    warm = {} if warm_start is None else {"warm_start": str(warm_start.absolute())}
    return flat({**tables, **spec.identity, **warm})


def _record(output: Path, metadata: dict[str, Any]) -> None:
    write_text(output / STUDY_FILE, json.dumps(metadata, ensure_ascii=False, indent=1) + "\n")


@dataclass(kw_only=True)
class _Run:
    """One command's work on a study."""

    output: Path
    config: ExperimentConfig
    identity: Identity
    study: Study
    on_event: OnEvent
    resumed: bool
    started: float
    corpus: EncodedCorpus | None = None
    directory: Path | None = None
    """Of this command's Tune."""

    def complete(
        self, spec: CorpusSpec, warm_start: Path | None, resources: Resources, limits: Limits
    ) -> TuneResult:
        """Run what is missing, and write what the study gave; a new one that cannot be goes."""
        if self.resumed:
            self.on_event(Note(f"Carrying on with {self.output}."))
        try:
            self.suggest_first(warm_start)
            self.search(spec, resources, limits)
            return self.finish()
        except UserError:
            if not self.resumed:
                withdraw(self.output)
            raise

    def suggest_first(self, warm_start: Path | None) -> None:
        """Queue the points to try first; a point that has been proposed is not queued again."""
        space = self.study.space
        if self.config.search.algorithm == "grid":
            self.study.suggest_first(space.grid()[: self.study.num_trials])
            return
        own = space.point_of(self.config)
        earlier = [] if warm_start is None else settings_worth_trying(warm_start, space)
        if warm_start is not None:
            self.on_event(Note(f"{len(earlier)} settings of {warm_start} are tried first."))
        self.study.suggest_first([*earlier, *([own] if own else [])])

    def search(self, spec: CorpusSpec, resources: Resources, limits: Limits) -> None:
        """Run the trials that are missing; on Ctrl-C, keep the best so far."""
        nested = self.config.training.workers_per_trial > 1
        try:
            with ray_session(replace(resources, with_dashboard=nested)) as capacity:
                trial = trial_resources(capacity, self.config.training)
                concurrency = trials_at_once(
                    capacity, trial, resources=resources, concurrency=limits.concurrency
                )
                self.corpus = prepare_corpus(spec, self.output, self.on_event)
                check_weights(self.corpus, self.config)
                if self.study.num_missing:
                    self.on_event(Progress("fitting the linear model", 0, 1))
                    linear_model(self.corpus)  # once, for all trials
                    self.on_event(Progress("fitting the linear model", 1, 1))
                    self._run_trials(self.corpus, trial, concurrency, limits)
        except KeyboardInterrupt:
            chosen = self._keep_best()
            if chosen is not None:
                self.on_event(Note(f"The best model so far is in {self.output / BEST}."))
            raise
        finally:
            for file in filter(Path.is_file, (self.output / _RAY).glob("*/*")):
                file.unlink()  # state of Tune's, here and of killed commands; the study needs none

    def _run_trials(
        self, corpus: EncodedCorpus, trial: TrialResources, concurrency: int, limits: Limits
    ) -> None:
        directory = self.directory = _next_directory(self.output / _RAY)
        settings = TrialSettings(
            corpus=corpus.path,
            config=self.config,
            resources=trial,
            directory=directory.with_name(f"{directory.name}{_INSIDE}"),
        )
        tuner = ray.tune.Tuner(
            ray.tune.with_resources(partial(run_trial, settings=settings), trial.of_tune_process),
            tune_config=ray.tune.TuneConfig(
                search_alg=StudySearcher(self.study),
                scheduler=StudyScheduler(self.study),
                num_samples=self.study.num_missing,
                max_concurrent_trials=concurrency,
                time_budget_s=limits.time_budget,
                reuse_actors=trial.num_workers == 1,
                trial_dirname_creator=_trial_directory,
            ),
            run_config=ray.tune.RunConfig(
                name=directory.name,
                storage_path=str(directory.parent),
                callbacks=[StudyCallback(self.study, on_change=self._changed)],
                failure_config=ray.tune.FailureConfig(max_failures=_MAX_FAILURES),
                checkpoint_config=ray.tune.CheckpointConfig(num_to_keep=1),
                verbose=0,
            ),
        )
        try:
            run_interruptibly(tuner.fit)
        finally:
            self.study.close()

    def _changed(self) -> None:
        rows, search = self._rows(), self.config.search
        self._remove_losers(rows)
        self.on_event(TrialsChanged(rows, self.study.num_trials, search.metric))

    def _rows(self) -> tuple[TrialRow, ...]:
        """The trials, best first, with the one marked that is to be in `best/`."""
        rows = self.study.rows()
        chosen = choose(rows, self.config.search)
        return tuple(replace(row, is_chosen=row is chosen) for row in rows)

    def _remove_losers(self, rows: Sequence[TrialRow]) -> None:
        """Remove the checkpoints of trials that have ended and cannot be chosen any more."""
        kept = worth_keeping(rows, self.config.search)
        for directory in (self.output / _RAY).glob("*/[0-9]*"):
            if directory.name not in kept or self._is_left_behind(directory):
                shutil.rmtree(directory, ignore_errors=True)

    def _is_left_behind(self, directory: Path) -> bool:
        """Whether it is of an earlier command, and not where its trial's last checkpoint is."""
        made_by = directory.parent.with_name(directory.parent.name.removesuffix(_INSIDE))
        checkpoint = self.study.checkpoint(int(directory.name))
        return made_by != self.directory and (
            checkpoint is None or directory not in checkpoint.parents
        )

    def finish(self) -> TuneResult:
        """Write what the study gave.

        Raises:
            RunError: it gave no model, or most trials failed in the same way.
        """
        chosen = self._keep_best()
        hopeless = self.study.hopeless
        if hopeless is not None:
            raise RunError(f"The study is stopped, as most trials fail in the same way: {hopeless}")
        rows = self._rows()
        if chosen is None:
            errors = [row.error for row in rows if row.error]
            reason = errors[0] if errors else "none got to the end of its first epoch"
            raise RunError(f"No trial gave a model: {reason}")
        result = TuneResult(
            study=str(self.output),
            best=asdict(chosen),
            trials=[asdict(row) for row in rows],
            seconds=time.perf_counter() - self.started,
            resumed=self.resumed,
        )
        search = self.config.search
        metadata = {
            "run": self.identity,
            "finished": not self.study.num_missing,
            "result": asdict(result),
            "metric": search.metric,
            "importance": self.study.importance(),
            "preferred": {"prefer": search.prefer, "tolerance": search.tolerance},
        }
        _record(self.output, metadata)
        return result

    def _keep_best(self) -> TrialRow | None:
        """Write the tables, and make the chosen trial's checkpoint a MODEL; returns the trial."""
        rows = self._rows()
        write_trials(self.output / TRIALS_FILE, rows)
        write_epochs(self.output / EPOCHS_FILE, self.study.epochs())
        chosen = next((row for row in rows if row.is_chosen), None)
        checkpoint = None if chosen is None else self.study.checkpoint(int(chosen.trial))
        if chosen is None or checkpoint is None or self.corpus is None:
            return None
        config = self.config.with_values(chosen.parameters)
        new = self.output / f"{BEST}.new"
        shutil.rmtree(new, ignore_errors=True)
        write_checkpoint(
            new, checkpoint=checkpoint, corpus=self.corpus, config=config, run=self.identity
        )
        shutil.rmtree(self.output / BEST, ignore_errors=True)
        new.rename(self.output / BEST)
        write_text(self.output / BEST_CONFIG, to_toml(config))
        return chosen


def _next_directory(path: Path) -> Path:
    """A numbered one that is not there yet; each command's Tune has its own."""
    numbers = [int(entry.name) for entry in path.glob("[0-9]*") if entry.name.isdigit()]
    return path / str(max(numbers, default=0) + 1)


def _trial_directory(trial: Trial) -> str:
    return str(trial.config["number"])
