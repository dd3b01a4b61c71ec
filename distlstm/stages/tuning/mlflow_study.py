"""Tracks a study in MLflow: a run with a child run for each trial, and the best model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from distlstm.stages.run.events import OnEvent, TrialRow
from distlstm.stages.run.files import METRICS
from distlstm.stages.run.output import Identity
from distlstm.stages.training.mlflow_connection import (
    MlflowConnection,
    ended_with_model,
    experiment_of,
    log_metrics,
    mlflow_connection,
    new_run,
)
from distlstm.storage import Directory

RUN_FILE = "mlflow_run_id"
"""In the directory of Ray Tune: the MLflow run of the study."""
_TRIAL, _STATE, _ERROR = "distlstm.trial", "distlstm.state", "distlstm.error"
_MAX_TAG = 500
_ENDS = {"done": "FINISHED", "stopped": "FINISHED", "failed": "FAILED"}
_FIGURES = (*METRICS, "training_loss")
"""Of an epoch; the last one marks it as logged."""


@contextmanager
def mlflow_study(
    directory: Directory, *, name: str, best: Path, settings: Identity, on_event: OnEvent
) -> Iterator["MlflowStudy | None"]:
    """A run for a study, new or resumed; None if there is no MLflow.

    At the end of the block, the model in `best` is logged.

    Args:
        directory: where the id of the run is kept.
        name: of the run.
        best: the MODEL of the best trial, if there is one.
        settings: the parameters of the run.
        on_event: gets a note if MLflow fails.
    """
    with mlflow_connection("study", on_event=on_event) as connection:
        if connection is None:
            yield None
            return
        study = MlflowStudy(connection, directory, name, settings)
        with ended_with_model(connection, study, best):
            yield study


class MlflowStudy:
    """The run of a study: each trial is a run below it, and each of its epochs is logged once."""

    def __init__(
        self, connection: MlflowConnection, directory: Directory, name: str, settings: Identity
    ) -> None:
        self.connection = connection
        self.run_id = ""
        self._name = name
        self._trials: dict[str, str] = {}
        """Id of the run of each trial."""
        self._logged: dict[str, int] = {}
        """The last epoch that is logged of each trial."""
        self._open: set[str] = set()
        """The trials whose runs have not ended."""
        connection.attempt(lambda client: self._begin(client, directory, settings))

    def update(self, rows: Sequence[TrialRow], epochs: Sequence[Mapping[str, Any]]) -> None:
        """Log what has changed: `rows` are all trials, `epochs` the reports of all of them."""
        self.connection.attempt(lambda client: self._update(client, rows, epochs))

    def chosen(self, row: TrialRow) -> None:
        """Log the figures of the trial whose model is used."""
        self.connection.attempt(lambda client: self._log_chosen(client, row))

    def end(self, client: Any, status: str) -> None:
        """End the run, and those of trials that have not ended."""
        for trial in sorted(self._open):
            client.set_terminated(self._trials[trial], "KILLED")
        client.set_terminated(self.run_id, status)

    def _begin(self, client: Any, directory: Directory, settings: Identity) -> None:
        try:
            self.run_id = directory.read_text(RUN_FILE).strip()
        except FileNotFoundError:
            self.run_id = new_run(client, self._name, settings=settings)
            directory.write(RUN_FILE, f"{self.run_id}\n")
            return
        client.update_run(self.run_id, status="RUNNING")
        for run in self._children(client):
            trial = run.data.tags[_TRIAL]
            self._trials[trial] = run.info.run_id
            history = client.get_metric_history(run.info.run_id, _FIGURES[-1])
            self._logged[trial] = max((metric.step for metric in history), default=0)
            if _STATE not in run.data.tags:
                client.update_run(run.info.run_id, status="RUNNING")
                self._open.add(trial)

    def _children(self, client: Any) -> Iterator[Any]:
        token: str | None = None
        wanted = f"tags.`mlflow.parentRunId` = '{self.run_id}'"
        while True:
            page = client.search_runs([experiment_of(client)], wanted, page_token=token)
            yield from page
            token = page.token
            if not token:
                return

    def _update(
        self, client: Any, rows: Iterable[TrialRow], epochs: Iterable[Mapping[str, Any]]
    ) -> None:
        ordered = sorted(rows, key=lambda row: int(row.trial))
        for row in ordered:
            if row.trial not in self._trials:
                self._begin_trial(client, row)
        for report in epochs:
            trial, epoch = report["trial"], report["epoch"]
            if epoch > self._logged.get(trial, 0):
                figures = {name: report[name] for name in _FIGURES}
                log_metrics(client, self._trials[trial], figures, step=epoch)
                self._logged[trial] = epoch
        for row in ordered:
            if row.trial in self._open and row.state in _ENDS:
                self._end_trial(client, row)

    def _begin_trial(self, client: Any, row: TrialRow) -> None:
        self._trials[row.trial] = new_run(
            client,
            f"{self._name}, trial {row.trial}",
            settings=row.parameters,
            parent=self.run_id,
            **{_TRIAL: row.trial},
        )
        self._open.add(row.trial)

    def _end_trial(self, client: Any, row: TrialRow) -> None:
        run_id = self._trials[row.trial]
        if row.error:
            client.set_tag(run_id, _ERROR, row.error[:_MAX_TAG])
        client.set_tag(run_id, _STATE, row.state)
        client.set_terminated(run_id, _ENDS[row.state])
        self._open.remove(row.trial)

    def _log_chosen(self, client: Any, row: TrialRow) -> None:
        client.set_tag(self.run_id, "distlstm.best_trial", row.trial)
        figures = {**row.metrics, "rows_per_second": row.rows_per_second or 0.0}
        log_metrics(client, self.run_id, figures, step=0)
