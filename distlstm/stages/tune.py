"""`distlstm tune`: Ray Tune searches, Optuna proposes, ASHA stops what does not get anywhere."""

import json
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray.tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import ASHAScheduler

from distlstm.atomic import write_text
from distlstm.config import ExperimentConfig, to_toml
from distlstm.data.corpus import CorpusSpec, EncodedCorpus
from distlstm.errors import RunError, UserError
from distlstm.stages.events import Note, OnEvent, TrialRow
from distlstm.stages.finish import write_checkpoint
from distlstm.stages.labelled_data import (
    DataRequest,
    check_first_file,
    check_vectors,
    check_weights,
    prepare_corpus,
)
from distlstm.stages.output import Identity, check_output, check_same, flat, read_identity, withdraw
from distlstm.stages.session import Capacity, Resources, ray_session, run_interruptibly
from distlstm.stages.trials import TrialRecorder, run_trial, search_algorithm, write_trials

STUDY_FILE, TRIALS_FILE, BEST, BEST_CONFIG = "study.json", "trials.parquet", "best", "best.toml"
_RAY_RUN = "ray"


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much a study may take."""

    time_budget: float | None = None
    """Seconds after which no trial goes on."""
    concurrency: int | None = None
    """Trials at once; None: as many as there are workers."""


@dataclass(frozen=True, kw_only=True)
class TuneResult:
    """What `tune` reports; the keys of its `--json` result."""

    study: str
    best: dict[str, Any]
    """The best trial: parameters, and metrics on validation."""
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
) -> TuneResult:
    """Search for a good classifier into `output`, or carry on where the same command stopped.

    On Ctrl-C the best so far is written to `best/` before KeyboardInterrupt goes on.

    Raises:
        UserError: bad data, an output that another command began, or more trials at once than fit.
        RunError: every trial failed; says the first one's error.
    """
    started = time.perf_counter()
    output = output.absolute()
    spec = data.find(config)
    identity = _identity(spec, config)
    check_output(output, marks=(STUDY_FILE,), overwrite=overwrite)
    recorded = read_identity(output / STUDY_FILE)
    if recorded is not None:
        check_same(output, recorded.get("run", {}), identity)
        if recorded.get("finished"):
            on_event(Note(f"{output} is already finished by this very command; nothing to do."))
            return TuneResult(**{**recorded["result"], "seconds": 0.0, "resumed": True})
        on_event(Note(f"Carrying on with {output}."))
    else:
        check_first_file(spec)
        check_vectors(spec, config, searched=config.search.space)
        _record(output, {"run": identity, "finished": False})
    recorder = TrialRecorder(config, on_event)
    corpus: EncodedCorpus | None = None
    try:
        with ray_session(resources) as capacity:
            concurrency = _concurrency(capacity, resources, limits)
            corpus = prepare_corpus(spec, output, on_event)
            check_weights(corpus, config)
            _search(corpus, config, output, capacity, concurrency, limits, recorder)
    except UserError:
        if recorded is None:
            withdraw(output)
        raise
    except KeyboardInterrupt:
        if corpus is not None and recorder.best is not None:
            _write_best(output, corpus, config, recorder, identity)
            on_event(Note(f"The best model so far is in {output / BEST}."))
        raise
    _check_some_worked(recorder)
    _write_best(output, corpus, config, recorder, identity)
    result = _result(output, recorder, time.perf_counter() - started, recorded is not None)
    _record(output, {"run": identity, "finished": True, "result": asdict(result)})
    return result


def _identity(spec: CorpusSpec, config: ExperimentConfig) -> Identity:
    return flat({**config.to_dict(), **spec.identity})


def _record(output: Path, facts: dict[str, Any]) -> None:
    write_text(output / STUDY_FILE, json.dumps(facts, ensure_ascii=False, indent=1) + "\n")


def _search(
    corpus: EncodedCorpus,
    config: ExperimentConfig,
    output: Path,
    capacity: Capacity,
    concurrency: int,
    limits: Limits,
    recorder: TrialRecorder,
) -> None:
    """Run the trials that are still to be run."""
    trial = ray.tune.with_resources(
        partial(run_trial, corpus=corpus.path, config=config, capacity=capacity),
        {"cpu": capacity.cpus_per_worker, "gpu": int(capacity.use_gpu)},
    )
    run_config = ray.tune.RunConfig(
        name=_RAY_RUN,
        storage_path=str(output),
        callbacks=[recorder],
        checkpoint_config=ray.tune.CheckpointConfig(num_to_keep=1),
        verbose=0,
    )
    tune_config = ray.tune.TuneConfig(
        metric="score",
        mode="max",
        search_alg=search_algorithm(config),
        scheduler=_scheduler(config),
        num_samples=config.search.num_trials,
        max_concurrent_trials=concurrency,
        time_budget_s=limits.time_budget,
        reuse_actors=True,
        trial_dirname_creator=_trial_directory,
    )
    if ray.tune.Tuner.can_restore(str(output / _RAY_RUN)):
        tuner = ray.tune.Tuner.restore(
            str(output / _RAY_RUN), trainable=trial, resume_unfinished=True
        )
        tuner._local_tuner._run_config.callbacks = [recorder]
    else:
        tuner = ray.tune.Tuner(trial, tune_config=tune_config, run_config=run_config)
    run_interruptibly(tuner.fit)


def _trial_directory(trial: Trial) -> str:
    return str(trial.trial_id)


def _scheduler(config: ExperimentConfig) -> ASHAScheduler:
    longest = config.training.max_epochs
    return ASHAScheduler(
        time_attr="epoch",
        max_t=longest + 1,
        grace_period=min(config.search.grace_epochs, longest),
        reduction_factor=config.search.reduction_factor,
    )


def _concurrency(capacity: Capacity, resources: Resources, limits: Limits) -> int:
    workers = capacity.workers(resources.num_workers, default=capacity.max_workers)
    if limits.concurrency is not None and limits.concurrency > workers:
        raise UserError(
            f"{limits.concurrency} trials at once do not fit {workers} workers of "
            f"{capacity.cpus_per_worker} CPUs. Lower --concurrency or --cpus-per-worker."
        )
    return limits.concurrency or workers


def _check_some_worked(recorder: TrialRecorder) -> None:
    if recorder.best is None:
        errors = [row.error for row in recorder.rows if row.error]
        reason = errors[0] if errors else "none got to the end of its first epoch"
        raise RunError(f"No trial gave a model: {reason}")


def _write_best(
    output: Path,
    corpus: EncodedCorpus,
    config: ExperimentConfig,
    recorder: TrialRecorder,
    identity: Identity,
) -> None:
    """Make the best trial's checkpoint a MODEL, and write the table of trials."""
    best = recorder.best
    if best is None:
        return
    checkpoint = recorder.checkpoints[best.trial]
    config = config.with_values(best.parameters)
    write_checkpoint(
        output / BEST, checkpoint=checkpoint, corpus=corpus, config=config, run=identity
    )
    write_text(output / BEST_CONFIG, to_toml(config))
    write_trials(output / TRIALS_FILE, recorder.rows)


def _result(output: Path, recorder: TrialRecorder, seconds: float, resumed: bool) -> TuneResult:
    def plain(row: TrialRow) -> dict[str, Any]:
        return asdict(row)

    return TuneResult(
        study=str(output),
        best=plain(recorder.rows[0]),
        trials=[plain(row) for row in recorder.rows],
        seconds=seconds,
        resumed=resumed,
    )
