"""Tests of `runs`: every output below a directory is listed, whatever the state it is in."""

import fcntl
import json
import os
import threading
from pathlib import Path

import pytest

from distlstm import RunRecord, runs
from distlstm.errors import UserError
from distlstm.stages.prediction.manifest import read_head, read_manifest
from distlstm.stages.run.output import LOCK_FILE, sole_use
from distlstm.storage import LocalStorage, storage_at
from tests.commands import run
from tests.object_store import environment_of, running_store
from tests.report import directories


def by_name(path: Path | str) -> dict[str, RunRecord]:
    return {record.name: record for record in runs(path)}


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run of every kind, at different depths."""
    path = tmp_path_factory.mktemp("team")
    directories.study(path / "ann/study")
    directories.model(path / "ann/model")
    directories.language_model(path / "lm")
    directories.evaluation(path / "ann/model/evaluation")
    directories.predictions(path / "nightly/2026-11-27")
    return path


def test_a_run_of_every_kind_is_listed_with_what_it_is_and_what_it_reached(team: Path) -> None:
    found = by_name(team)
    assert {name: (record.kind, record.state) for name, record in found.items()} == {
        "ann/study": ("study", "finished"),
        "ann/model": ("model", "finished"),
        "ann/model/evaluation": ("evaluation", "finished"),
        "lm": ("language model", "finished"),
        "nightly/2026-11-27": ("predictions", "finished"),
    }
    model = found["ann/model"]
    assert (model.metric, model.value, model.rows) == ("accuracy", 0.81, 11_000)
    assert found["lm"].metric == "perplexity"
    assert found["nightly/2026-11-27"].rows == 300
    assert found["nightly/2026-11-27"].data == "in"
    assert found["ann/model/evaluation"].metrics["macro_f1"] == 0.89
    assert model.settings["model.hidden_dim"] == 128
    assert by_name(team / "ann/model").keys() == {".", "evaluation"}


def test_the_newest_run_is_the_first(team: Path, tmp_path: Path) -> None:
    for i, name in enumerate(("b", "c", "a")):
        file = directories.model(tmp_path / name) / "model.json"
        os.utime(file, (1e9 + i, 1e9 + i))
    assert [record.name for record in runs(tmp_path)] == ["a", "c", "b"]
    assert runs(tmp_path).runs[0].when.isoformat() == "2001-09-09T01:46:42+00:00"


def test_the_inside_of_a_run_is_not_listed(tmp_path: Path) -> None:
    outputs = directories.predictions(tmp_path / "out"), directories.study(tmp_path / "study")
    for path in (outputs[0] / "day=1", outputs[1] / "best", outputs[1] / "ray/1/0/checkpoint"):
        directories.model(path)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert by_name(tmp_path).keys() == {"out", "study"}


def test_what_was_stopped_is_unfinished_and_what_has_its_lock_is_running(tmp_path: Path) -> None:
    training = tmp_path / "model"
    (training / "checkpoints").mkdir(parents=True)
    identity = {"model.hidden_dim": 12, "columns.label": "label"}
    (training / "checkpoints/run.json").write_text(json.dumps(identity))
    (training / LOCK_FILE).touch()  # as a killed command leaves it
    directories.predictions(tmp_path / "out", errors=("disk full",))
    study = directories.study(tmp_path / "study", finished=False, result={})
    found = by_name(tmp_path)
    assert [found[name].state for name in ("model", "out", "study")] == ["unfinished"] * 3
    assert found["model"].settings == {"model.hidden_dim": 12}
    with sole_use(LocalStorage(study)), sole_use(LocalStorage(training)):
        states = {name: record.state for name, record in by_name(tmp_path).items()}
    assert states == {"model": "running", "out": "unfinished", "study": "running"}


def test_a_listing_that_looks_at_a_lock_refuses_no_command(tmp_path: Path) -> None:
    file = os.open(tmp_path / LOCK_FILE, os.O_RDWR | os.O_CREAT)
    fcntl.flock(file, fcntl.LOCK_SH)  # as `is_in_use` has it
    threading.Timer(0.02, os.close, [file]).start()
    with sole_use(LocalStorage(tmp_path)):
        pass


@pytest.mark.parametrize("content", ["{", "[]", '{"format_version": 99}', "{}"])
def test_a_damaged_run_is_listed_as_that_beside_the_others(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, content: str
) -> None:
    directories.model(tmp_path / "good")
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/model.json").write_text(content)
    found = by_name(tmp_path)
    assert found["bad"].state == "damaged"
    assert found["bad"].problem
    assert found["good"].state == "finished"
    code, out, _ = run(capfd, "runs", tmp_path)
    assert code == 0
    assert "bad is damaged" in out


def test_an_evaluation_names_its_model_if_that_is_listed(tmp_path: Path) -> None:
    path = directories.model(tmp_path / "model")
    metadata = json.loads((path / "model.json").read_text())
    metadata |= {"files": {}, "temperature": 1.0}
    (path / "model.json").write_text(json.dumps(metadata))
    fingerprint = by_name(tmp_path)["model"].fingerprint
    for name, model in (("own", fingerprint), ("other", "beef")):
        record = {"run": {"model": model}, "data": "test.parquet", "finished": True}
        evaluation = directories.evaluation(tmp_path / name)
        (evaluation / "evaluation.json").write_text(json.dumps(record))
    found = by_name(tmp_path)
    assert (found["own"].model, found["own"].data) == ("model", "test.parquet")
    assert found["other"].model == "beef"


@pytest.mark.parametrize("num_labels", [3, 9_000])
def test_the_head_of_a_manifest_is_read_without_its_parts(tmp_path: Path, num_labels: int) -> None:
    labels = tuple(f"a label with a name {i}" for i in range(num_labels))
    storage = LocalStorage(directories.predictions(tmp_path / "p", labels=labels))
    whole = read_manifest(storage)
    del whole["parts"]
    assert read_head(storage) == whole
    (storage.path / "_manifest.json").write_text('{\n "rows_in": 3\n}')
    with pytest.raises(ValueError, match="no list of parts"):
        read_head(storage)


def test_runs_in_an_object_store_are_listed_as_those_on_a_disk(team: Path) -> None:
    with running_store() as store, environment_of(store.variables):
        storage = storage_at("s3://bucket/team")
        for file in filter(Path.is_file, team.rglob("*")):
            storage.write_file(file.relative_to(team).as_posix(), file)
        with sole_use(storage.below("lm")):
            found = by_name("s3://bucket/team")
        assert {n: (r.kind, r.metrics, r.rows) for n, r in found.items()} == {
            n: (r.kind, r.metrics, r.rows) for n, r in by_name(team).items()
        }
        assert {n for n, r in found.items() if r.state == "running"} == {"lm"}
        assert found["lm"].location == "s3://bucket/team/lm"
        with pytest.raises(UserError, match="nothing at s3://bucket/none"):
            runs("s3://bucket/none")


def test_the_command_prints_a_table_or_an_object(
    capfd: pytest.CaptureFixture[str], team: Path, tmp_path: Path
) -> None:
    code, out, _ = run(capfd, "runs", team)
    assert code == 0
    assert "nightly/2026-11-27" in out
    assert "accuracy 0.81" in out
    result = json.loads(run(capfd, "runs", team, "--json").out)
    assert result["path"] == str(team)
    assert {row["name"] for row in result["runs"]} == by_name(team).keys()
    assert all(row["when"].endswith("Z") for row in result["runs"])
    assert "No model" in run(capfd, "runs", tmp_path).out
    assert run(capfd, "runs", tmp_path / "nowhere").code == 2
    assert run(capfd, "runs", team / "lm/model.json").code == 2


def test_a_name_with_control_characters_or_markup_has_no_effect_on_the_terminal(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    directories.model(tmp_path / "\x1b[31m[bold]red")
    _, out, _ = run(capfd, "runs", tmp_path)
    assert "\\x1b[31m[bold]red" in out
    assert "\x1b[31m" not in out
