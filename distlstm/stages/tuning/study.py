"""The record of a study: its trials with their parameters, reports and final states.

It is stored in Optuna's storage, an SQLite file in the STUDY directory or a database that a team
shares, and changed in transactions. So it survives any crash, and the sampler (TPE) and the pruner
(asynchronous successive halving) continue from it in the next command. `optuna-dashboard` shows the
same file or database.
"""

import re
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, Trial, TrialState

from distlstm.config import ExperimentConfig, SearchConfig
from distlstm.stages.run.events import TrialRow
from distlstm.stages.run.files import METRICS
from distlstm.stages.run.ray_storage import name_below
from distlstm.stages.tuning.database import in_database, in_file
from distlstm.stages.tuning.search_space import Parameters, SearchSpace
from distlstm.storage import Directory, LocalStorage

STORAGE_FILE = "optuna.db"
STUDY_NAME = "distlstm"
"""In a file, which has one study; in a database, each has a name of its own."""
_FIRST_RANDOM = 6
_SAME_FAILURES = 3
_MAX_DEATHS = 3
"""Deaths of a trial's processes, on nodes that live on, after which it fails."""
_STATES = {
    TrialState.COMPLETE: "done",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
}


@dataclass(frozen=True, kw_only=True)
class TrialReport:
    """The report of a trial after an epoch.

    The metrics are those of the whole model with the weights of this epoch, on the validation rows:
    with linear model and cascade, if the config has them.
    """

    epoch: int
    num_epochs: int
    """The maximum number of epochs."""
    accuracy: float
    macro_f1: float
    loss: float
    training_loss: float
    is_best: bool
    """Whether this is the best epoch so far, whose weights are kept."""
    finished: bool
    """Whether this is the last epoch."""
    started: float
    ended: float
    """Wall-clock seconds since 1970; the first epoch starts with the trial."""
    seconds: float
    """Duration of training and validation alone."""
    worker: str
    """Host name and process id."""
    rows_per_second: float
    """Rows per second that one worker classifies with a model of this size."""
    num_parameters: int


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A trial to run."""

    number: int
    parameters: Parameters
    attempt: int
    """How often this command has proposed the trial before; its process died each time."""
    checkpoint: Directory | None
    """Checkpoint from which the trial is resumed."""


class Study:
    """The record of a study. Only one process at a time may change it."""

    def __init__(
        self,
        directory: Path,
        config: ExperimentConfig,
        *,
        checkpoints: Directory | None = None,
        name: str = STUDY_NAME,
    ) -> None:
        """Open the study of this name, or create it: in a directory, or in `search.storage`.

        The checkpoints of the trials are below the directory, or below `checkpoints`.

        Raises:
            UserError: the database cannot be opened.
        """
        self._checkpoints = checkpoints or LocalStorage(directory)
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.search = config.search
        self.space = SearchSpace(config.searched)
        self._optuna = optuna.create_study(
            study_name=name,
            storage=in_database(self.search.storage)
            if self.search.storage
            else in_file(directory / STORAGE_FILE),
            load_if_exists=True,
            direction="minimize" if self.search.metric == "loss" else "maximize",
            pruner=optuna.pruners.SuccessiveHalvingPruner(
                min_resource=self.search.grace_epochs,
                reduction_factor=self.search.reduction_factor,
            ),
        )
        if self.search.storage:
            self._optuna.set_user_attr("output", self._checkpoints.location)
        trials = self._trials()
        # A new random state; with the old one, the sampler would repeat its proposals.
        self._optuna.sampler = _sampler(self.search, seed=(config.seed, len(trials)))
        running = [trial._trial_id for trial in trials if trial.state == TrialState.RUNNING]
        self._unfinished = [Trial(self._optuna, trial_id) for trial_id in running]
        self._live: dict[int, Trial] = {}
        self._proposed: Counter[int] = Counter()
        self._deaths: Counter[int] = Counter()
        self._failures: list[str] = []
        self._num_ended = 0
        self._closed = False
        self._end_finished()

    def _end_finished(self) -> None:
        """End the trials that an earlier command left open although they had finished."""
        for trial in list(self._unfinished):
            reports = _reports(trial)
            if reports and reports[-1]["finished"]:
                self._unfinished.remove(trial)
                self._record_end(trial)

    def close(self) -> None:
        """Ignore all further changes: when Tune is shut down, it reports its trials as failed."""
        self._closed = True

    def suggest_first(self, points: Iterable[Parameters]) -> None:
        """Queue these values before all others, each once; missing parameters are sampled."""
        for point in points:
            self._optuna.enqueue_trial(self.space.encode(point), skip_if_exists=True)

    @property
    def num_trials(self) -> int:
        """The number of trials of the complete study."""
        if self.search.algorithm == "grid":
            return min(self.search.num_trials, len(self.space.grid()))
        return self.search.num_trials

    @property
    def num_missing(self) -> int:
        """The number of trials that have not ended yet."""
        num_ended = sum(bool(trial.state.is_finished()) for trial in self._trials())
        return max(0, self.num_trials - num_ended)

    def propose(self) -> Proposal | None:
        """The next trial to run; unfinished trials come first."""
        if self._unfinished:
            trial = self._unfinished.pop(0)
        elif len(self._trials()) < self.num_trials:
            trial = self._optuna.ask(self.space.distributions)
        else:
            return None
        self._live[trial.number] = trial
        self._proposed[trial.number] += 1
        return Proposal(
            number=trial.number,
            parameters=self.space.decode(trial.params),
            attempt=self.attempt(trial.number),
            checkpoint=self.checkpoint(trial.number),
        )

    def attempt(self, number: int) -> int:
        """The number of a trial's last attempt in this command, from 0."""
        return max(0, self._proposed[number] - 1)

    @property
    def is_running(self) -> bool:
        """Whether a trial runs; if its process dies, `propose` returns it again."""
        return bool(self._live)

    def report(self, number: int, report: TrialReport) -> bool:
        """Record a report of a trial; returns whether the trial has to stop."""
        if self._closed:
            return True
        trial = self._live[number]
        known = _reports(trial)
        earlier = [row for row in known if row["epoch"] < report.epoch]
        trial.set_user_attr("reports", [*earlier, asdict(report)])
        if known == earlier:  # otherwise the epoch ran again, after its worker had died
            trial.report(_best_report(_reports(trial))[self.search.metric], report.epoch)
        return not report.finished and trial.should_prune()

    def keep_checkpoint(self, number: int, path: str) -> None:
        """Record a trial's last checkpoint, also in a closed study, as Tune removes older ones."""
        name = name_below(self._checkpoints, path)
        self._live[number].set_user_attr("checkpoint", name)

    def checkpoint(self, number: int) -> Directory | None:
        """The last checkpoint of a trial; None if there is none or it was removed."""
        name = self._optuna.get_trials(deepcopy=False)[number].user_attrs.get("checkpoint")
        if name is None or Path(name).is_absolute():  # as older versions recorded it
            return None
        found = self._checkpoints.below(name)
        return None if found.is_empty() else found

    def end(self, number: int) -> None:
        """Record that a trial has finished or was stopped."""
        if self._closed:
            return
        self._record_end(self._live.pop(number))
        self._num_ended += 1

    def _record_end(self, trial: Trial) -> None:
        reports = _reports(trial)
        if reports[-1]["finished"]:
            self._optuna.tell(trial, _best_report(reports)[self.search.metric])
        else:
            self._optuna.tell(trial, state=TrialState.PRUNED)

    def died(self, number: int, error: str, *, blamed: bool) -> None:
        """Record that a trial's process has died: the trial runs again, from its last checkpoint.

        It fails if it is to blame for several deaths, and not only the nodes that ended.
        """
        if self._closed:
            return
        self._deaths[number] += blamed
        reports = _reports(self._live[number])
        if reports and reports[-1]["finished"]:
            self.end(number)
        elif self._deaths[number] >= _MAX_DEATHS:
            self.fail(number, error)
        else:
            self._unfinished.append(self._live.pop(number))

    def fail(self, number: int, error: str) -> None:
        """Record that a trial has failed and is not retried."""
        if self._closed:
            return
        trial = self._live.pop(number)
        trial.set_user_attr("error", error)
        self._optuna.tell(trial, state=TrialState.FAIL)
        self._failures.append(error)
        self._num_ended += 1

    @property
    def hopeless(self) -> str | None:
        """The error of most trials of this command; None if there is no such error.

        Messages that differ only in numbers, such as the trial's settings, are the same error.
        """
        counts = Counter(re.sub(r"[\d.]+", "0", error) for error in self._failures)
        same, count = counts.most_common(1)[0] if counts else ("", 0)
        if count < _SAME_FAILURES or 2 * count <= self._num_ended:
            return None
        return next(e for e in self._failures if re.sub(r"[\d.]+", "0", e) == same)

    def rows(self) -> tuple[TrialRow, ...]:
        """The trials, best first; equal ones by loss, those without metrics last."""
        rows = [self._row(t) for t in self._trials() if t.state in _STATES]
        sign = 1 if self.search.metric == "loss" else -1

        def key(row: TrialRow) -> tuple[bool, float, float]:
            metric, loss = (row.metrics.get(name, 0.0) for name in (self.search.metric, "loss"))
            return (not row.metrics, sign * metric, loss)

        return tuple(sorted(rows, key=key))

    def epochs(self) -> list[dict[str, Any]]:
        """The reports of all trials, by trial and epoch, each with its `trial`."""
        return [
            {"trial": str(trial.number), **report}
            for trial in self._trials()
            for report in _reports(trial)
        ]

    def importance(self) -> dict[str, float]:
        """Each parameter's share of the variation of the metric (PED-ANOVA); empty if unknown.

        Source: Watanabe, Bansal, Hutter, "PED-ANOVA", IJCAI 2023.
        """
        evaluator = optuna.importance.PedAnovaImportanceEvaluator()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                found = optuna.importance.get_param_importances(self._optuna, evaluator=evaluator)
        except (ValueError, RuntimeError, UserWarning):  # too few trials, or all are equal
            return {}
        return {name: float(value) for name, value in found.items() if np.isfinite(value)}

    def _trials(self) -> list[FrozenTrial]:
        """The trials that have been proposed, by number."""
        trials = self._optuna.get_trials(deepcopy=False)
        return [trial for trial in trials if trial.state != TrialState.WAITING]

    def _row(self, trial: FrozenTrial) -> TrialRow:
        reports = _reports(trial)
        metrics, last = {}, {}
        if reports:
            best, last = _best_report(reports), reports[-1]
            metrics = {name: best[name] for name in METRICS}
        state = _STATES[trial.state]
        return TrialRow(
            trial=str(trial.number),
            parameters=self.space.decode(trial.params),
            state="unfinished" if state == "running" and self._closed else state,
            epoch=last.get("epoch", 0),
            num_epochs=last.get("num_epochs", 0),
            metrics=metrics,
            seconds=sum(report["ended"] - report["started"] for report in reports),
            rows_per_second=last.get("rows_per_second"),
            num_parameters=last.get("num_parameters"),
            error=trial.user_attrs.get("error"),
        )


def _sampler(search: SearchConfig, *, seed: tuple[int, int]) -> BaseSampler:
    state = int(np.random.SeedSequence(seed).generate_state(1)[0])
    if search.algorithm == "tpe":
        return TPESampler(
            seed=state, n_startup_trials=_FIRST_RANDOM, multivariate=True, constant_liar=True
        )
    return RandomSampler(seed=state)


def _reports(trial: Trial | FrozenTrial) -> list[dict[str, Any]]:
    return list(trial.user_attrs.get("reports", []))


def _best_report(reports: list[dict[str, Any]]) -> dict[str, Any]:
    return next(report for report in reversed(reports) if report["is_best"])
