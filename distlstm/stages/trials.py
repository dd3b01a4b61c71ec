"""The trials of a study: what one runs, what it reports, and the table of them all."""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import ray.tune
import torch
from ray.tune.experiment import Trial
from ray.tune.search.optuna import OptunaSearch

from distlstm.atomic import replace_file
from distlstm.config import Domain, ExperimentConfig, SearchConfig
from distlstm.data.corpus import EncodedCorpus
from distlstm.model.checkpoint import restore_training, save_training
from distlstm.model.loop import Worker
from distlstm.model.metrics import Metrics
from distlstm.stages.events import OnEvent, TrialRow, TrialsChanged
from distlstm.stages.session import Capacity
from distlstm.stages.training_job import TrainingJob

_FIRST_RANDOM = 6
_STATES = {"TERMINATED": "done", "ERROR": "failed", "RUNNING": "running"}


def run_trial(
    parameters: dict[str, Any], *, corpus: Path, config: ExperimentConfig, capacity: Capacity
) -> None:
    """Train one setting in a Tune worker, reporting a checkpoint after every epoch."""
    torch.set_num_threads(capacity.cpus_per_worker)
    device = torch.device("cuda" if capacity.use_gpu else "cpu")
    config = config.with_values(parameters)
    job = TrainingJob(EncodedCorpus(corpus), config, Worker(device=device))
    checkpoint = ray.tune.get_checkpoint()
    if checkpoint is not None:
        with checkpoint.as_directory() as directory:
            restore_training(job.training, Path(directory))
    for result in job.training.run(job.training_batches, job.validation_batches):
        best = job.training.best or result
        report = {
            "epoch": result.epoch,
            "finished": job.training.finished,
            "score": score(best.validation, config.search),
            **_shown_metrics(best.validation),
        }
        with tempfile.TemporaryDirectory() as directory:
            save_training(job.training, Path(directory))
            ray.tune.report(report, checkpoint=ray.tune.Checkpoint.from_directory(directory))


def score(metrics: Metrics, search: SearchConfig) -> float:
    """The figure that trials are ranked by; more is better."""
    if search.metric == "loss":
        return -metrics.log_loss
    return float(getattr(metrics, search.metric))


def _shown_metrics(metrics: Metrics) -> dict[str, float]:
    return {
        "accuracy": metrics.accuracy,
        "macro_f1": metrics.macro_f1,
        "loss": metrics.log_loss,
    }


def search_algorithm(config: ExperimentConfig) -> OptunaSearch:
    """Optuna's proposals; the first trial is the configuration itself, if the space holds it."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    search = config.search
    space = {name: _ray_domain(domain) for name, domain in search.space.items()}
    samplers = {
        "tpe": lambda: optuna.samplers.TPESampler(
            seed=config.seed, n_startup_trials=_FIRST_RANDOM, multivariate=True
        ),
        "random": lambda: optuna.samplers.RandomSampler(seed=config.seed),
    }
    return OptunaSearch(
        space,
        metric="score",
        mode="max",
        sampler=samplers[search.algorithm](),
        points_to_evaluate=_own_point(config),
    )


def _ray_domain(domain: Domain) -> Any:
    values = domain.values
    makers = {
        "choice": lambda: ray.tune.choice(list(values)),
        "uniform": lambda: ray.tune.uniform(*values),
        "loguniform": lambda: ray.tune.loguniform(*values),
        "int": lambda: ray.tune.randint(values[0], values[1] + 1),
        "quniform": lambda: ray.tune.quniform(*values),
    }
    return makers[domain.kind]()


def _own_point(config: ExperimentConfig) -> list[dict[str, Any]] | None:
    tables = config.to_dict()
    point = {}
    for name, domain in config.search.space.items():
        section, _, key = name.partition(".")
        point[name] = tables[section][key]
        inside = (
            point[name] in domain.values
            if domain.kind == "choice"
            else domain.values[0] <= point[name] <= domain.values[1]
        )
        if not inside or isinstance(point[name], tuple):
            return None
    return [point]


class TrialRecorder(ray.tune.Callback):  # type: ignore[misc]
    """Turns Tune's trials into rows whenever one of them changes, in the driver's process."""

    def __init__(self, config: ExperimentConfig, on_event: OnEvent) -> None:
        self.config = config
        self.on_event = on_event
        self.rows: tuple[TrialRow, ...] = ()
        self.checkpoints: dict[str, Path] = {}

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Called by Tune after every event."""
        del iteration, info
        rows = ranked([_row(trial) for trial in trials if trial.status != "PENDING"], self.config)
        for trial in trials:
            if trial.checkpoint is not None:
                self.checkpoints[trial.trial_id] = Path(trial.checkpoint.path)
        if rows != self.rows:
            self.rows = rows
            search = self.config.search
            self.on_event(TrialsChanged(rows, search.num_trials, search.metric))

    def __getstate__(self) -> dict[str, Any]:
        """Tune saves its callbacks with the study; there is nothing of ours to keep."""
        return {}

    @property
    def best(self) -> TrialRow | None:
        """The best trial so far that has a checkpoint."""
        usable = [row for row in self.rows if row.metrics and row.trial in self.checkpoints]
        return usable[0] if usable else None


def ranked(rows: Sequence[TrialRow], config: ExperimentConfig) -> tuple[TrialRow, ...]:
    """Best first; trials without a result last."""
    metric = config.search.metric
    sign = 1 if metric == "loss" else -1

    def key(row: TrialRow) -> tuple[bool, float]:
        return (not row.metrics, sign * row.metrics.get(metric, 0.0))

    return tuple(sorted(rows, key=key))


def _row(trial: Trial) -> TrialRow:
    last: Mapping[str, Any] = trial.last_result or {}
    state = _STATES.get(trial.status, "running")
    if state == "done" and not last.get("finished"):
        state = "stopped"
    return TrialRow(
        trial=trial.trial_id,
        parameters=dict(trial.config),
        state=state,
        epoch=last.get("epoch", 0),
        metrics={name: last[name] for name in ("accuracy", "macro_f1", "loss") if name in last},
        seconds=float(last.get("time_total_s", 0.0)),
        error=_last_line(trial.error_file) if state == "failed" else None,
    )


def _last_line(path: str | None) -> str:
    try:
        lines = Path(path or "").read_text(encoding="utf-8").strip().split("\n")
    except OSError:
        return "unknown"
    return lines[-1][:500]


def write_trials(path: Path, rows: Sequence[TrialRow]) -> None:
    """A row per trial, best first: parameters and metrics as columns of their own."""
    flat = [
        {**asdict(replace(row, parameters={}, metrics={})), **row.parameters, **row.metrics}
        for row in rows
    ]
    for row in flat:
        del row["parameters"], row["metrics"]
    names = list(dict.fromkeys(name for row in flat for name in row))
    table = pa.table({name: [row.get(name) for row in flat] for name in names})
    with replace_file(path) as temporary:
        pq.write_table(table, temporary)
