"""Tests of what TensorBoard and MLflow are told of a training, and of the model that is logged."""

import struct
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from tensorboardX.proto.event_pb2 import Event

import distlstm
from distlstm.errors import UserError
from distlstm.model.directory import save_model
from distlstm.model.metrics import Totals, metrics_of
from distlstm.model.training import EpochResult
from distlstm.stages.run.events import EpochDone, Note
from distlstm.stages.training.mlflow_connection import write_mlflow_model
from distlstm.stages.training.tracking import figures_of, tracked
from distlstm.storage import LocalStorage, WorkingCopy
from tests.stages.small_model import model as small_model


def events_in(directory: Path) -> list[tuple[int, str, float]]:
    """Epoch, name and value of every scalar in TensorBoard's record files, as far as written."""
    found = []
    for file in sorted(directory.glob("*")):
        data, position = file.read_bytes(), 0
        while position + 12 < len(data):
            (size,) = struct.unpack_from("<Q", data, position)
            if position + 12 + size > len(data):
                break
            event = Event.FromString(data[position + 12 : position + 12 + size])
            found += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
            position += 12 + size + 4
    return found


def tracked_epochs(directory: Path) -> list[int]:
    """Epochs in the order in which their training loss was written."""
    return [epoch for epoch, name, _ in events_in(directory) if name == "training/loss"]


def result(epoch: int) -> EpochResult:
    return EpochResult(
        epoch=epoch,
        steps=3,
        training_loss=1 / epoch,
        validation=metrics_of(Totals.zero(2)),
        is_best=True,
        seconds=1.0,
        num_tokens=100,
        padding_share=0.0,
        highest_rate=0.1,
        learning_rate=0.1 / epoch,
    )


def train(
    output: Path, finished: list[int], following: list[int], *, error: BaseException | None = None
) -> list[Any]:
    """Track epochs as a training would; what was heard besides."""
    heard: list[Any] = []
    output.joinpath("checkpoints").mkdir(parents=True, exist_ok=True)
    with tracked(
        WorkingCopy(LocalStorage(output), last=()),
        settings={"seed": 0, "model.hidden_dim": 12},
        finished=[result(epoch) for epoch in finished],
        on_event=heard.append,
    ) as on_event:
        for epoch in following:
            on_event(EpochDone(result(epoch), 9))
        if error is not None:
            raise error
    return [event for event in heard if not isinstance(event, EpochDone)]


@pytest.fixture(autouse=True)
def no_mlflow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)


def test_an_epoch_is_in_the_event_files_with_all_its_figures(tmp_path: Path) -> None:
    train(tmp_path, [], [1])
    written = {name: value for _, name, value in events_in(tmp_path / "events")}
    assert set(written) == set(figures_of(result(1)))
    assert written["training/learning_rate"] == pytest.approx(0.1)


def test_a_resumed_training_has_every_epoch_once(tmp_path: Path) -> None:
    train(tmp_path, [], [1, 2, 3])
    assert tracked_epochs(tmp_path / "events") == [1, 2, 3]
    train(tmp_path, [1, 2], [3, 3, 4])  # the checkpoint of epoch 3 was lost, twice
    assert tracked_epochs(tmp_path / "events") == [1, 2, 3, 4]


def test_without_mlflow_a_training_says_so_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///nowhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (note,) = train(tmp_path, [], [1])
    assert "distlstm[mlflow]" in note.text
    assert tracked_epochs(tmp_path / "events") == [1]


@pytest.mark.filterwarnings("ignore")
def test_an_mlflow_run_is_resumed_and_holds_every_epoch_once(client: Any, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "m", [], [1, 2], error=KeyboardInterrupt())
    experiment = client.get_experiment_by_name("distlstm").experiment_id
    assert [run.info.status for run in client.search_runs([experiment])] == ["KILLED"]
    assert train(tmp_path / "m", [1, 2], [3]) == []
    (run,) = client.search_runs([experiment])
    assert (run.info.status, run.info.run_name) == ("FINISHED", "m")
    assert run.data.params == {"seed": "0", "model.hidden_dim": "12"}
    history = client.get_metric_history(run.info.run_id, "training_loss")
    assert [(m.step, m.value) for m in history] == [(1, 1.0), (2, 0.5), (3, 1 / 3)]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("client", ["directory"], indirect=True)
def test_an_mlflow_that_fails_stops_no_training(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    notes = train(tmp_path, [], [1, 2])
    assert len(notes) == 1
    assert isinstance(notes[0], Note)
    assert "goes on without it" in notes[0].text


@pytest.mark.filterwarnings("ignore")
def test_a_logged_model_predicts_in_mlflow_what_it_predicts_here(
    client: Any, tmp_path: Path
) -> None:
    save_model(small_model(), tmp_path / "m")
    assert train(tmp_path / "m", [], [1]) == []
    (run,) = client.search_runs([client.get_experiment_by_name("distlstm").experiment_id])
    loaded = mlflow_pyfunc().load_model(f"runs:/{run.info.run_id}/model")
    rows = pd.DataFrame({"text": ["goal a b", "bank rain", None], "id": [1, 2, 3]})
    expected = distlstm.load_model(tmp_path / "m").predict(rows).to_pandas()
    pd.testing.assert_frame_equal(loaded.predict(rows), expected)
    best = loaded.predict(rows, params={"top_k": 2})
    assert [len(labels) for labels in best["predicted_labels"][:2]] == [2, 2]


@pytest.mark.filterwarnings("ignore")
def test_an_artifact_has_no_pickle_and_one_that_was_changed_is_refused(tmp_path: Path) -> None:
    pyfunc = mlflow_pyfunc()
    save_model(small_model(), tmp_path / "m")
    (tmp_path / "artifact").mkdir()
    write_mlflow_model(tmp_path / "artifact", tmp_path / "m")
    names = {file.suffix for file in (tmp_path / "artifact").rglob("*") if file.is_file()}
    assert names <= {"", ".txt", ".json", ".safetensors", ".html"}
    weights = tmp_path / "artifact/data/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\0")
    with pytest.raises(UserError, match="damaged"):
        pyfunc.load_model(str(tmp_path / "artifact"))


def mlflow_pyfunc() -> Any:
    reason = "mlflow is not installed: distlstm[mlflow]"
    return pytest.importorskip("mlflow.pyfunc", reason=reason)
