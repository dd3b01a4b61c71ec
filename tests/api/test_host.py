"""A function of the API leaves the process that calls it as it was."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import distlstm
from distlstm.model import metadata as model_metadata
from tests.conftest import labelled_rows

pytestmark = pytest.mark.ray

HOST = """
import json, logging, os, random, signal, sys, threading
from pathlib import Path

import numpy as np
import torch

import distlstm

data, output = sys.argv[1:3]
signal.signal(signal.SIGTERM, lambda *_: None)
logging.getLogger("ray").setLevel(logging.WARNING)
logging.getLogger("optuna").setLevel(logging.INFO)

def state():
    return {
        "handlers": [repr(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)],
        "levels": [logging.getLogger(n).level for n in ("", "ray", "ray.tune", "optuna")],
        "outputs": [os.readlink(f"/proc/self/fd/{fd}") for fd in (1, 2)],
        "streams": [sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__],
        "environment": {n: v for n, v in os.environ.items() if not n.startswith(LIBRARIES)},
        "directory": os.getcwd(),
        "random": [random.getstate(), np.random.get_state()[1].tolist(),
                   torch.random.get_rng_state().tolist()],
        "threads": torch.get_num_threads(),
    }

LIBRARIES = ("CRC32C_", "KMP_", "TORCHINDUCTOR_", "_MLFLOW_", "_RJEM_")  # set as they are imported
before = state()
heard = []
def listen(event):
    heard.append(event)
    if isinstance(event, Note):
        print("NOTE", event.text)

from distlstm.stages.run.events import Note

small = {"model.hidden_dim": 8, "model.embedding_dim": 8, "training.max_epochs": 2}
space = {"search.space": {"model.hidden_dim": {"choice": [4, 8]}}}
distlstm.train(data, output=f"{output}/m", config=small, workers=1, on_event=listen)
distlstm.tune(data, output=f"{output}/s", config=small | space, trials=2, on_event=listen)
distlstm.evaluate(data, model=f"{output}/m", output=f"{output}/e", on_event=listen)
distlstm.batch_predict(data, model=f"{output}/m", output=f"{output}/p", on_event=listen)
distlstm.verify(f"{output}/p")
distlstm.load_model(f"{output}/m").predict(["goal"])
try:
    distlstm.train(data, output=f"{output}/x", config={"model.hidden_dims": 8})
except distlstm.UserError as error:
    print("ERROR", error)
after = state()
different = [name for name in before if before[name] != after[name]]
print("DIFFERENT", json.dumps(different))
print("EVENTS", len(heard))
"""


def test_handlers_loggers_descriptors_and_random_states_are_as_before_and_a_listener_may_print(
    corpus_file: Path, tmp_path: Path
) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MALLOC_"))}
    ended = subprocess.run(
        [sys.executable, "-c", HOST, str(corpus_file), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert "DIFFERENT []" in lines, ended.stdout
    shown = [line.partition(" ")[0] for line in lines]
    assert set(shown) == {"NOTE", "ERROR", "DIFFERENT", "EVENTS"}, "and nobody else printed"
    assert any("training and " in line for line in lines if line.startswith("NOTE"))
    assert any("Did you mean model.hidden_dim?" in line for line in lines)


RAY_BEFORE_AND_AFTER = """
import os, sys
import ray, ray.data

import distlstm

data, model = sys.argv[1:3]
assert distlstm.evaluate(data, model=model, workers=1).num_rows == 600
ray.init(address="local", num_cpus=1, log_to_driver=False, include_dashboard=False)
assert ray.get(ray.remote(lambda: 7).remote()) == 7
assert distlstm.evaluate(data, model=model, workers=1).num_rows == 600
assert ray.is_initialized(), "the host's own Ray is left running"
ray.shutdown()
assert distlstm.evaluate(data, model=model, workers=1).num_rows == 600
"""


def test_a_host_may_import_start_and_end_a_ray_of_its_own(
    corpus_file: Path, model: Path, tmp_path: Path
) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "MALLOC_"))}
    ended = subprocess.run(
        [sys.executable, "-c", RAY_BEFORE_AND_AFTER, str(corpus_file), str(model)],
        capture_output=True,
        text=True,
        check=False,
        env={**environment, "HOME": str(tmp_path)},
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.usefixtures("ray_cluster")
@pytest.mark.parametrize("command", ["evaluate", "batch_predict"])
def test_a_command_reads_the_metadata_of_its_model_once(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    pq.write_table(pa.table(labelled_rows(60)), tmp_path / "rows.parquet")
    reads, read_json = [], model_metadata.read_json

    def counted(path: Path, *, largest: int) -> Any:
        reads.extend([path] if path == model / model_metadata.METADATA_FILE else [])
        return read_json(path, largest=largest)

    monkeypatch.setattr(model_metadata, "read_json", counted)
    getattr(distlstm, command)(tmp_path / "rows.parquet", model=model, output=tmp_path / "o")
    assert len(reads) == 1, "the workers, in processes of their own, aside"


@pytest.mark.usefixtures("ray_cluster")
def test_data_and_config_are_taken_in_every_form(corpus_file: Path, tmp_path: Path) -> None:
    file, output = tmp_path / "a.toml", tmp_path / "m"
    file.write_text("seed = 3\n[training]\nmax_epochs = 1\n")
    trained = distlstm.train(corpus_file, output=output, config=file, workers=1)
    assert trained.epochs == 1
    assert json.loads((output / "model.json").read_text())["seed"] == 3
    configs = [str(file), {"training.max_epochs": 1, "seed": 3}, distlstm.load_config(file)]
    sources = [str(corpus_file), [corpus_file], (str(corpus_file.parent / "*.parquet"),)]
    for data, config in zip(sources, configs, strict=True):
        again = distlstm.train(data, output=str(output), config=config)
        assert again.resumed, "it is the same command"
        assert again.metrics == trained.metrics
    with pytest.raises(distlstm.UserError, match="seed was 3, is 4"):
        distlstm.train(corpus_file, output=output, config=file, seed=4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"config": {"model.hidden": 8}}, r"Did you mean model\.hidden_dim"),
        ({"config": {"model.hidden_dim": "8"}}, "must be a whole number"),
        ({"data": 7}, "not int"),
        ({"data": []}, "No data are given"),
        ({"workers": "2"}, "whole number"),
        ({"data": ["nowhere.parquet"]}, "nowhere.parquet"),
    ],
)
def test_wrong_arguments_are_user_errors(
    corpus_file: Path, tmp_path: Path, arguments: dict[str, object], message: str
) -> None:
    data = arguments.pop("data", corpus_file)
    with pytest.raises(distlstm.UserError, match=message):
        distlstm.train(data, output=tmp_path / "m", **arguments)  # type: ignore[arg-type]
    assert not (tmp_path / "m").exists()
