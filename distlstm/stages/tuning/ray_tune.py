"""Connects Ray Tune, which runs the trials, with the study, which records them and decides."""

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import ray.tune
from ray.exceptions import RayActorError
from ray.tune.execution import class_cache
from ray.tune.experiment import Trial
from ray.tune.integration.ray_train import CHECKPOINT_PATH_KEY
from ray.tune.schedulers import FIFOScheduler, TrialScheduler
from ray.tune.search import Searcher

from distlstm.stages.run.nodes import died_with_its_node
from distlstm.stages.tuning.study import Study, TrialReport
from distlstm.stages.tuning.trial import FAILURE

class_cache.ENV_VARS_TO_PROPAGATE -= {
    name for name in class_cache.ENV_VARS_TO_PROPAGATE if name.startswith("AWS_")
}
"""Tune would send the credentials of the command to the trials, and so into the logs of the nodes;
a node has its own."""

_REPORTED = [field.name for field in fields(TrialReport)]


class StudySearcher(Searcher):  # type: ignore[misc]
    """Gives Tune the study's proposals, until all trials have ended or the study is hopeless."""

    def __init__(self, study: Study) -> None:
        super().__init__()
        self.study = study

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next proposal as the config of a Tune trial.

        None: there is none, but one may follow, as long as trials run. `FINISHED`: none follows.
        """
        del trial_id
        if self.study.hopeless:
            return str(Searcher.FINISHED)
        proposal = self.study.propose()
        if proposal is None:
            return None if self.study.is_running else str(Searcher.FINISHED)
        return {
            "number": proposal.number,
            "attempt": proposal.attempt,
            "parameters": proposal.parameters,
            "checkpoint": proposal.checkpoint.location if proposal.checkpoint else None,
        }

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Do nothing: `StudyCallback` updates the study."""

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the study is on disk already."""

    def restore(self, checkpoint_path: str) -> None:
        """Do nothing: the study is on disk already."""


class StudyScheduler(FIFOScheduler):  # type: ignore[misc]
    """Records every report in the study, which decides whether the trial stops."""

    def __init__(self, study: Study) -> None:
        super().__init__()
        self.study = study

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Handle a report; Tune calls this before the trial continues."""
        del tune_controller
        if FAILURE in result:
            return str(TrialScheduler.STOP)
        number = trial.config["number"]
        report = TrialReport(**{name: result[name] for name in _REPORTED})
        stop = self.study.report(number, report)
        if CHECKPOINT_PATH_KEY in result:  # from Ray Train inside the trial
            self.study.keep_checkpoint(number, result[CHECKPOINT_PATH_KEY])
        return str(TrialScheduler.STOP if stop else TrialScheduler.CONTINUE)


class StudyCallback(ray.tune.Callback):  # type: ignore[misc]
    """Records checkpoints and ends of trials in the study, and calls `on_change` on changes.

    `on_step` is called several times a second, with whether any trial has its resources.
    """

    def __init__(
        self, study: Study, *, on_change: Callable[[], None], on_step: Callable[[bool], None]
    ) -> None:
        self.study = study
        self.on_change = on_change
        self.on_step = on_step

    def on_step_end(self, *, trials: list[Trial], **_: Any) -> None:
        """Handle the end of a step of Tune's loop."""
        self.on_step(any(trial.status == Trial.RUNNING for trial in trials))

    def on_trial_start(self, **_: Any) -> None:
        """Handle the start or restart of a trial."""
        self.on_change()

    def on_trial_result(self, **_: Any) -> None:
        """Handle a report, which the scheduler has recorded."""
        self.on_change()

    def on_checkpoint(self, *, trial: Trial, checkpoint: Any, **_: Any) -> None:
        """Record a stored checkpoint."""
        self.study.keep_checkpoint(trial.config["number"], checkpoint.path)

    def on_trial_complete(self, *, trial: Trial, **_: Any) -> None:
        """Record a trial that finished, was stopped, or reported why it failed."""
        number, failure = trial.config["number"], trial.last_result.get(FAILURE)
        if failure is None:
            self.study.end(number)
        else:
            self.study.fail(number, failure)
        self.on_change()

    def on_trial_error(self, *, trial: Trial, **_: Any) -> None:
        """Record that a trial's process has died."""
        error = trial.get_pickled_error()
        blamed = not (isinstance(error, RayActorError) and died_with_its_node(error))
        self.study.died(trial.config["number"], _last_line(trial.error_file), blamed=blamed)
        self.on_change()

    def __getstate__(self) -> dict[str, Any]:
        """Tune saves its callbacks with its own state; this one has nothing to save."""
        return {}


def _last_line(path: str | None) -> str:
    try:
        lines = Path(path or "").read_text(encoding="utf-8").strip().split("\n")
    except OSError:
        lines = ["unknown"]
    return f"Its process died: {lines[-1][:500]}"
