"""Tests of a study in MLflow: a run with a child for each trial, also after a kill."""

from pathlib import Path
from typing import Any

import pytest

from distlstm.model.directory import save_model
from distlstm.stages.run.events import Note
from distlstm.stages.tuning.mlflow_study import mlflow_study
from distlstm.stages.tuning.study import Study
from distlstm.storage import LocalStorage
from tests.stages.small_model import model as small_model
from tests.stages.tuning.test_study import config, report

pytestmark = pytest.mark.filterwarnings("ignore")


def search(path: Path, *, num_trials: int, killed_in: int | None = None) -> list[Any]:
    """Run the missing trials, of two epochs each; what was heard. A kill comes within a trial."""
    study = Study(path, config(f"search.num_trials={num_trials}", "search.grace_epochs=9"))
    heard: list[Any] = []
    ray = LocalStorage(path / "ray")
    with mlflow_study(
        ray, name="s", best=path / "best", settings={"seed": 0}, on_event=heard.append
    ) as tracker:
        while (proposal := study.propose()) is not None:
            number = proposal.number
            for epoch in (1, 2):
                study.report(number, report(epoch, 0.5 + number / 10, last=2))
                if tracker is not None:
                    tracker.update(study.rows(), study.epochs())
                if number == killed_in:
                    raise KeyboardInterrupt
            if number == 1:
                study.fail(number, "it diverged")
            else:
                study.end(number)
            if tracker is not None:
                tracker.update(study.rows(), study.epochs())
        if tracker is not None:
            tracker.chosen(study.rows()[0])
    return heard


def runs(client: Any) -> tuple[Any, dict[str, Any]]:
    """The run of the study, and those of its trials by number."""
    experiment = client.get_experiment_by_name("distlstm").experiment_id
    found = client.search_runs([experiment])
    (parent,) = [run for run in found if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in found if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} <= {parent.info.run_id}
    return parent, {run.data.tags["distlstm.trial"]: run for run in children}


def test_a_study_is_a_run_with_a_child_for_each_trial_and_has_the_best_model(
    client: Any, tmp_path: Path
) -> None:
    save_model(small_model(), tmp_path / "best")
    assert search(tmp_path, num_trials=3) == []
    parent, trials = runs(client)
    assert (parent.info.run_name, parent.info.status) == ("s", "FINISHED")
    assert parent.data.params == {"seed": "0"}
    assert parent.data.tags["distlstm.best_trial"] == "2"
    assert parent.data.metrics["macro_f1"] == pytest.approx(0.7)
    assert [trials[n].info.status for n in "012"] == ["FINISHED", "FAILED", "FINISHED"]
    assert trials["1"].data.tags["distlstm.error"] == "it diverged"
    assert trials["0"].data.params.keys() >= {"model.hidden_dim", "model.dropout"}
    history = client.get_metric_history(trials["2"].info.run_id, "macro_f1")
    assert [(metric.step, metric.value) for metric in history] == [(1, 0.7), (2, 0.7)]
    pyfunc = pytest.importorskip("mlflow.pyfunc")
    loaded = pyfunc.load_model(f"runs:/{parent.info.run_id}/model")
    assert loaded.get_raw_model().labels == ("sport", "money", "天气")


def test_a_killed_study_carries_on_in_the_same_runs_with_every_epoch_once(
    client: Any, tmp_path: Path
) -> None:
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path, num_trials=3, killed_in=2)
    parent, trials = runs(client)
    assert parent.info.status == trials["2"].info.status == "KILLED"
    assert search(tmp_path, num_trials=4) == []
    after, more = runs(client)
    assert (after.info.run_id, after.info.status) == (parent.info.run_id, "FINISHED")
    assert more.keys() == {"0", "1", "2", "3"}
    assert more["2"].info.run_id == trials["2"].info.run_id
    assert [more[n].info.status for n in "0123"] == ["FINISHED", "FAILED", "FINISHED", "FINISHED"]
    for run in more.values():
        history = client.get_metric_history(run.info.run_id, "training_loss")
        assert [metric.step for metric in history] == [1, 2]


@pytest.mark.parametrize("client", ["directory"], indirect=True)
def test_an_mlflow_that_fails_stops_no_study(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    (note,) = search(tmp_path, num_trials=2)
    assert isinstance(note, Note)
    assert "the study goes on without it" in note.text
