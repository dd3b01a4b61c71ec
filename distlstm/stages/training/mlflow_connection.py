"""The connection to MLflow, if MLFLOW_TRACKING_URI is set.

Tracking never stops the work: an error is reported once, and the work goes on without tracking.
"""

import importlib.util
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from shutil import copyfile
from typing import Any, Protocol

from distlstm import __version__, environment
from distlstm.model.metadata import METADATA_FILE, file_names, gives_label_sets, load_metadata
from distlstm.stages.run.events import Note, OnEvent
from distlstm.stages.run.files import REPORT_FILE

MODEL_ARTIFACT = "model"
"""Below a run: what `mlflow.pyfunc.load_model` loads."""
_LOADER = "distlstm.api.mlflow_loader"
_MAX_VALUE_LENGTH = 500
_MOST_IN_A_BATCH = 100
_SHORT_TIMEOUTS = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


@contextmanager
def mlflow_connection(what: str, *, on_event: OnEvent) -> Iterator["MlflowConnection | None"]:
    """A connection for a block, in which `what` (`training`, `study`) is tracked.

    Yields None if MLFLOW_TRACKING_URI is not set or mlflow is not installed; the latter is
    reported.
    """
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        yield None
        return
    if importlib.util.find_spec("mlflow") is None:
        on_event(
            Note(
                f"MLFLOW_TRACKING_URI is set, but mlflow is not installed, so this {what} is not "
                "tracked. Install it with: pip install 'distlstm[mlflow]'"
            )
        )
        yield None
        return
    with environment.defaults(_SHORT_TIMEOUTS):
        yield MlflowConnection(what, on_event)


class MlflowConnection:
    """Does what is asked of MLflow, until something fails."""

    def __init__(self, what: str, on_event: OnEvent) -> None:
        self._what = what
        self._on_event = on_event
        self._client: Any = None
        self._given_up = False

    def attempt(self, act: Callable[[Any], None]) -> None:
        """Call a function with MLflow's client; the first error is the last call."""
        if self._given_up:
            return
        try:
            if self._client is None:
                from mlflow import MlflowClient  # from the optional dependency `mlflow`

                self._client = MlflowClient()
            act(self._client)
        except Exception as error:
            self._given_up = True
            reason = str(error).strip().partition("\n")[0]
            self._on_event(Note(f"MLflow failed, the {self._what} goes on without it: {reason}"))


class TrackedRun(Protocol):
    """A run in MLflow."""

    run_id: str

    def end(self, client: Any, status: str) -> None:
        """End it with one of MLflow's states."""
        ...


@contextmanager
def ended_with_model(connection: MlflowConnection, run: TrackedRun, model: Path) -> Iterator[None]:
    """At the end of a block, log the MODEL, if it is there, and end the run as the block ended."""
    status = "FAILED"
    try:
        yield
        if (model / METADATA_FILE).exists():
            connection.attempt(lambda client: log_model(client, run.run_id, model))
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        connection.attempt(lambda client: run.end(client, status))


def new_run(
    client: Any, name: str, *, settings: Mapping[str, Any], parent: str | None = None, **tags: str
) -> str:
    """A run in the experiment MLFLOW_EXPERIMENT_NAME (default: `distlstm`); its id."""
    from mlflow.entities import Param

    if parent is not None:
        tags["mlflow.parentRunId"] = parent
    run_id = client.create_run(experiment_of(client), run_name=name, tags=tags).info.run_id
    params = [Param(key, str(value)[:_MAX_VALUE_LENGTH]) for key, value in settings.items()]
    for start in range(0, len(params), _MOST_IN_A_BATCH):
        client.log_batch(run_id, params=params[start : start + _MOST_IN_A_BATCH])
    return str(run_id)


def experiment_of(client: Any) -> str:
    """The id of the experiment, which is created if there is none."""
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME", "distlstm")
    experiment = client.get_experiment_by_name(name)
    return str(experiment.experiment_id if experiment else client.create_experiment(name))


def log_metrics(client: Any, run_id: str, figures: Mapping[str, float], *, step: int) -> None:
    """Log the metrics of an epoch: all of them or none."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(name, float(value), now, step) for name, value in figures.items()]
    client.log_batch(run_id, metrics=metrics)


def log_model(client: Any, run_id: str, model: Path) -> None:
    """Log a MODEL as an artifact that `mlflow.pyfunc.load_model` loads, without pickle."""
    with tempfile.TemporaryDirectory(prefix="distlstm-") as directory:
        write_mlflow_model(Path(directory), model, run_id)
        client.log_artifacts(run_id, directory, MODEL_ARTIFACT)


def write_mlflow_model(directory: Path, model: Path, run_id: str | None = None) -> None:
    """Write a MODEL in MLflow's format: its own files, and `MLmodel`, which says how to load it."""
    import mlflow.pyfunc
    from mlflow.models import Model

    metadata = load_metadata(model)
    (directory / "data").mkdir()
    names = [METADATA_FILE, *file_names(metadata), REPORT_FILE]
    for name in names:
        if (model / name).exists():
            copyfile(model / name, directory / "data" / name)
    described = Model(
        artifact_path=MODEL_ARTIFACT, run_id=run_id, signature=_signature(metadata), model_uuid=None
    )
    mlflow.pyfunc.add_to_model(described, loader_module=_LOADER, data="data")
    described.save(str(directory / "MLmodel"))
    (directory / "requirements.txt").write_text(f"distlstm=={__version__}\n", encoding="utf-8")


def _signature(metadata: Mapping[str, Any]) -> Any:
    """A column of texts in; the columns that `Model.predict` gives out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
    from mlflow.types.schema import Array

    text = metadata.get("run", {}).get("columns.text", "text")
    params = None
    if gives_label_sets(metadata):
        outputs = [
            ColSpec(Array(DataType.string), "predicted_labels"),
            ColSpec(Array(DataType.float), "predicted_scores"),
        ]
    else:
        outputs = [
            ColSpec(DataType.string, "predicted_label"),
            ColSpec(DataType.float, "predicted_score"),
        ]
        params = ParamSchema(
            [
                ParamSpec("top_k", DataType.long, default=None),
                ParamSpec("min_score", DataType.double, default=None),
            ]
        )
    inputs = Schema([ColSpec(DataType.string, text, required=False)])
    return ModelSignature(inputs=inputs, outputs=Schema(outputs), params=params)
