"""Tracks a training as an MLflow run, with the model as an artifact."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distlstm.atomic import write_text
from distlstm.model.training import EpochResult
from distlstm.stages.run.events import OnEvent
from distlstm.stages.run.files import MLFLOW_RUN_FILE
from distlstm.stages.run.output import Identity
from distlstm.stages.training.mlflow_connection import (
    MlflowConnection,
    ended_with_model,
    log_metrics,
    mlflow_connection,
    new_run,
)

_MARK = "training_loss"
"""The last metric of an epoch, which marks it as logged."""


@contextmanager
def mlflow_run(
    output: Path, *, settings: Identity, on_event: OnEvent
) -> Iterator["MlflowRun | None"]:
    """A run for a training, new or resumed; None if there is no MLflow.

    At the end of the block, the model is logged, if it is there.
    """
    with mlflow_connection("training", on_event=on_event) as connection:
        if connection is None:
            yield None
            return
        run = MlflowRun(output, settings, connection)
        with ended_with_model(connection, run, output):
            yield run


class MlflowRun:
    """An MLflow run: logs the parameters once, and the metrics of each epoch once."""

    def __init__(self, output: Path, settings: Identity, connection: MlflowConnection) -> None:
        self.output = output
        self.connection = connection
        self.run_id = ""
        self.logged = 0
        """The last epoch that is logged."""
        connection.attempt(lambda client: self._open(client, settings))

    def epoch(self, result: EpochResult) -> None:
        """Log the metrics of an epoch, unless they are logged already."""
        if result.epoch > self.logged:
            self.connection.attempt(lambda client: self._log(client, result))

    def end(self, client: Any, status: str) -> None:
        """End the run."""
        client.set_terminated(self.run_id, status)

    def _open(self, client: Any, settings: Identity) -> None:
        file = self.output / MLFLOW_RUN_FILE
        if file.exists():
            self.run_id = file.read_text(encoding="utf-8").strip()
            client.update_run(self.run_id, status="RUNNING")
            logged = client.get_metric_history(self.run_id, _MARK)
            self.logged = max((metric.step for metric in logged), default=0)
            return
        self.run_id = new_run(client, self.output.name, settings=settings)
        write_text(file, self.run_id + "\n")

    def _log(self, client: Any, result: EpochResult) -> None:
        figures = {
            "learning_rate": result.learning_rate,
            "validation_loss": result.validation.log_loss,
            "validation_accuracy": result.validation.accuracy,
            "validation_macro_f1": result.validation.macro_f1,
            _MARK: result.training_loss,
        }
        log_metrics(client, self.run_id, figures, step=result.epoch)
        self.logged = result.epoch
