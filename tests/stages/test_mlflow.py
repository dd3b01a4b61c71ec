"""Tests of `train` and `tune` with MLflow: what the commands log, from beginning to end."""

import json
from pathlib import Path
from typing import Any

import pytest

from distlstm import load_model
from tests.commands import TINY, run

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.usefixtures("ray_cluster"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.mark.parametrize("client", ["directory"], indirect=True)
def test_the_models_of_train_and_tune_are_loaded_by_mlflow(
    capfd: pytest.CaptureFixture[str], client: Any, corpus_file: Path, tmp_path: Path
) -> None:
    pyfunc = pytest.importorskip("mlflow.pyfunc")
    small = [*TINY, "--set", "training.max_epochs=2"]
    space = ["--set", "search.space.model.num_layers={choice=[1, 2]}"]
    commands = {
        "model": ["train", corpus_file, "--output", tmp_path / "model", *small, "--workers", 1],
        "study": ["tune", corpus_file, "--output", tmp_path / "study", *small, *space],
    }
    models = {"model": tmp_path / "model", "study": tmp_path / "study/best"}
    assert run(capfd, *commands["model"], "--quiet").code == 0
    assert run(capfd, *commands["study"], "--trials", 2, "--quiet").code == 0
    found = client.search_runs([client.get_experiment_by_name("distlstm").experiment_id])
    named = {each.info.run_name: each for each in found}
    assert named.keys() == {"model", "study", "study, trial 0", "study, trial 1"}
    assert {each.info.status for each in found} == {"FINISHED"}
    for name, path in models.items():
        logged = pyfunc.load_model(f"runs:/{named[name].info.run_id}/model")
        assert logged.get_raw_model().fingerprint == load_model(path).fingerprint
    trials = json.loads((tmp_path / "study/study.json").read_text())["result"]["trials"]
    for trial in trials:
        tracked = named[f"study, trial {trial['trial']}"].data
        assert tracked.metrics["macro_f1"] == pytest.approx(trial["metrics"]["macro_f1"], abs=0.2)
        assert tracked.tags["distlstm.state"] == trial["state"]
    assert json.loads((tmp_path / "study/study.json").read_text())["data"] == str(corpus_file)
