"""Ray Train and Tune keep their checkpoints in an object store, through our file system."""

import json
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray import train, tune
from ray.train import Checkpoint, RunConfig, ScalingConfig
from ray.train.torch import TorchTrainer

from distlstm.data.filesystem import open_filesystem
from distlstm.stages.run.session import Resources, shared_ray
from distlstm.storage import storage_at
from tests.object_store import environment_of, running_store

pytestmark = [pytest.mark.ray, pytest.mark.soak]


@pytest.fixture(scope="module")
def directory() -> Iterator[str]:
    """A directory in a store that all workers of this module's Ray can reach."""
    with running_store() as store, environment_of(store.variables), shared_ray(Resources()):
        yield f"s3://bucket/{uuid.uuid4().hex}"


def _work(config: dict[str, Any]) -> None:
    for step in range(2):
        with tempfile.TemporaryDirectory() as directory:
            Path(directory, "state.json").write_text(json.dumps(step))
            train.report({"step": step}, checkpoint=Checkpoint.from_directory(directory))


def _trial(config: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        Path(directory, "state.json").write_text(json.dumps(config["x"]))
        tune.report({"x": config["x"]}, checkpoint=tune.Checkpoint.from_directory(directory))


def test_a_training_keeps_its_checkpoints_in_the_store(directory: str) -> None:
    filesystem, path = open_filesystem(directory)
    run = RunConfig(name="run", storage_path=path, storage_filesystem=filesystem)
    result = TorchTrainer(_work, scaling_config=ScalingConfig(num_workers=1), run_config=run).fit()
    assert result.checkpoint is not None
    with result.checkpoint.as_directory() as local:
        assert json.loads(Path(local, "state.json").read_text()) == 1
    names = [entry.name for entry in storage_at(directory).list("run")]
    assert sum(name.endswith("state.json") for name in names) == 2


def test_a_study_keeps_its_trials_in_the_store(directory: str) -> None:
    filesystem, path = open_filesystem(directory)
    tuner = tune.Tuner(
        _trial,
        param_space={"x": tune.grid_search([1, 2])},
        run_config=tune.RunConfig(name="study", storage_path=path, storage_filesystem=filesystem),
    )
    results = tuner.fit()
    best = results.get_best_result("x", "max").checkpoint
    assert best is not None
    with best.as_directory() as local:
        assert json.loads(Path(local, "state.json").read_text()) == 2
    experiment = f"{path}/study"
    assert tune.Tuner.can_restore(experiment, storage_filesystem=filesystem)
