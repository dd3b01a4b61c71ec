"""Tracks a training as an MLflow run, if MLFLOW_TRACKING_URI is set.

Tracking never stops a training: an error is reported once, and training goes on without tracking.
"""

import importlib.util
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distlstm import environment
from distlstm.atomic import write_text
from distlstm.model.training import EpochResult
from distlstm.stages.run.events import Note, OnEvent
from distlstm.stages.run.files import MLFLOW_RUN_FILE
from distlstm.stages.run.output import Identity

_FIRST_METRIC = "training_loss"
_MAX_VALUE_LENGTH = 500
_SHORT_TIMEOUTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


@contextmanager
def mlflow_run(
    output: Path, *, settings: Identity, on_event: OnEvent
) -> Iterator["MlflowRun | None"]:
    """A run in the experiment MLFLOW_EXPERIMENT_NAME (default: `distlstm`), new or resumed.

    Yields None if MLFLOW_TRACKING_URI is not set or mlflow is not installed; the latter is
    reported.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        yield None
        return
    if importlib.util.find_spec("mlflow") is None:
        on_event(
            Note(
                "MLFLOW_TRACKING_URI is set, but mlflow is not installed, so this training is not "
                "tracked. Install it with: pip install 'distlstm[mlflow]'"
            )
        )
        yield None
        return
    with environment.defaults(_SHORT_TIMEOUTS):
        run = MlflowRun(output, settings, on_event)
        status = "FAILED"
        try:
            yield run
            status = "FINISHED"
        except KeyboardInterrupt:
            status = "KILLED"
            raise
        finally:
            run.end(status)


class MlflowRun:
    """An MLflow run: logs the parameters once, and the metrics of each epoch once."""

    def __init__(self, output: Path, settings: Identity, on_event: OnEvent) -> None:
        self.output = output
        self.on_event = on_event
        self.client: Any = None
        self.run_id = ""
        self.given_up = False
        self.logged = 0
        """The last epoch that is logged."""
        self._try(lambda: self._open(settings))

    def epoch(self, result: EpochResult) -> None:
        """Log the metrics of an epoch, unless they are logged already."""
        if result.epoch > self.logged:
            self._try(lambda: self._log(result))

    def end(self, status: str) -> None:
        """Set the final status: `FINISHED`, `FAILED` or `KILLED`."""
        self._try(lambda: self.client.set_terminated(self.run_id, status))

    def _open(self, settings: Identity) -> None:
        from mlflow import MlflowClient  # from the optional dependency `mlflow`

        self.client = MlflowClient()
        file = self.output / MLFLOW_RUN_FILE
        if file.exists():
            self.run_id = file.read_text(encoding="utf-8").strip()
            self.client.update_run(self.run_id, status="RUNNING")
            logged = self.client.get_metric_history(self.run_id, _FIRST_METRIC)
            self.logged = max((metric.step for metric in logged), default=0)
            return
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "distlstm")
        experiment = self.client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self.client.create_experiment(name)
        self.run_id = self.client.create_run(number, run_name=self.output.name).info.run_id
        for key, value in settings.items():
            self.client.log_param(self.run_id, key, str(value)[:_MAX_VALUE_LENGTH])
        write_text(file, self.run_id + "\n")

    def _log(self, result: EpochResult) -> None:
        figures = {
            "learning_rate": result.learning_rate,
            "validation_loss": result.validation.log_loss,
            "validation_accuracy": result.validation.accuracy,
            "validation_macro_f1": result.validation.macro_f1,
            _FIRST_METRIC: result.training_loss,  # last: it marks the epoch as logged
        }
        for name, value in figures.items():
            self.client.log_metric(self.run_id, name, value, step=result.epoch)
        self.logged = result.epoch

    def _try(self, act: Callable[[], None]) -> None:
        if self.given_up:
            return
        try:
            act()
        except Exception as error:
            self.given_up = True
            reason = str(error).strip().partition("\n")[0]
            self.on_event(Note(f"MLflow failed, training goes on without it: {reason}"))
