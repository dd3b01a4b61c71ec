"""Two nodes that share no directory, an object store that fails, and commands that are killed.

Each node sees an empty disk of its own where its cache, its home and its temporary files are. All
go to the store through a proxy that answers one call in ten with 503 and breaks off one in twenty.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ray.train.v2._internal.execution.scaling_policy.autoscaling_coordinator_client import (
    AUTOSCALING_REQUESTS_EXPIRE_TIME_S,
)

from distlstm.stages.run.output import LOCK_FILE
from distlstm.storage import ObjectStorage, storage_at
from tests.faulty_proxy import running_proxy
from tests.nodes import Cluster
from tests.object_store import S3_KEYS, environment_of, running_store
from tests.stages.conftest import write_rows
from tests.stages.test_interruption import wait_until

pytestmark = [pytest.mark.ray, pytest.mark.fault]
SECONDS = 300
NUM_FILES, ROWS_PER_FILE = 8, 1_500
SETTINGS = {
    "model.hidden_dim": 48,
    "model.wide": "false",
    "training.rows_per_batch": 32,
    "training.max_epochs": 4,
    "training.min_epochs": 4,
    "training.patience": 4,
}
SET = [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]


@dataclass(frozen=True)
class Place:
    """The cluster, and the directory in the store."""

    cluster: Cluster
    storage: ObjectStorage
    """As the tests see it, without the proxy."""
    directory: Path
    """The disk of the machine where the commands run; the nodes have others in its place."""

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        words = [str(word).replace("store:", f"{self.storage.location}/") for word in arguments]
        on = ["--address", self.cluster.address] if words[0] in RUN_ON_RAY else []
        return subprocess.Popen(
            [sys.executable, "-m", "distlstm", *words, *on],
            env=self.cluster.environment,
            cwd=self.directory,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: object) -> str:
        return ended(self.start(*arguments))

    def names(self, directory: str) -> list[str]:
        return [entry.name for entry in self.storage.below(directory).list()]

    def holder(self, directory: str) -> int:
        """The process that has locked a directory."""
        return int(json.loads(self.storage.read(f"{directory}/{LOCK_FILE}"))["pid"])

    def table(self, name: str) -> pa.Table:
        return pq.read_table(pa.BufferReader(self.storage.read(name)))


RUN_ON_RAY = ("train", "tune", "evaluate", "batch-predict")


def ended(process: subprocess.Popen[str]) -> str:
    """What a command printed that must end well."""
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert S3_KEYS["AWS_SECRET_ACCESS_KEY"] not in out + err
    return out


def can_unshare() -> bool:
    command = ["unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt"]
    return (
        shutil.which("unshare") is not None
        and subprocess.run(command, capture_output=True, check=False).returncode == 0
    )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    if not can_unshare():
        pytest.skip("mount namespaces cannot be made here")
    directory = tmp_path_factory.mktemp("disk")
    own_disk = f"mount -t tmpfs none {directory} && mkdir {directory}/tmp && exec "
    (directory / "tmp").mkdir()
    with running_store() as store, running_proxy(store.port, seed=3) as endpoint:
        cluster = Cluster()
        cluster.environment |= store.variables | {
            "AWS_ENDPOINT_URL": endpoint,
            "DISTLSTM_CACHE": str(directory / "cache"),
            "TMPDIR": str(directory / "tmp"),
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        with cluster, environment_of(store.variables):
            for _ in range(2):
                cluster.add(1, within=["unshare", "--mount", "sh", "-c", f'{own_disk} "$@"', "sh"])
            storage = storage_at("s3://bucket/d")
            assert isinstance(storage, ObjectStorage)
            for i in range(NUM_FILES):
                with storage.replacing(f"in/f{i}.parquet") as file:
                    write_rows(file, ROWS_PER_FILE, i)
            with storage.replacing("train.parquet") as file:
                write_rows(file, 2_500, 1_000)
            yield Place(cluster, storage, directory)


@pytest.fixture(scope="module")
def trained(place: Place) -> dict[str, Any]:
    """The result of a training on both nodes."""
    command = ["train", "store:train.parquet", "--output", "store:model", *SET, "--workers", "2"]
    return dict(json.loads(place.run(*command, "--json")))


def check_rows(place: Place, output: str) -> None:
    for i in range(NUM_FILES):
        before, after = (place.table(f"{where}/f{i}.parquet") for where in ("in", output))
        assert after.select(before.column_names).equals(before)
        assert after["predicted_label"].null_count == 0
    assert place.run("verify", f"store:{output}").startswith(f"{NUM_FILES} parts with")


def kill_when(
    place: Place, condition: Callable[[], bool], *arguments: object
) -> subprocess.Popen[str]:
    """Kill a command with SIGKILL at a moment at which it is at work."""
    process = place.start(*arguments)
    wait_until(lambda: condition() or process.poll() is not None, SECONDS)
    assert process.poll() is None, process.communicate()
    process.kill()
    process.communicate()
    return process


def test_a_training_on_two_nodes_gives_the_model_of_one(
    place: Place, trained: dict[str, Any]
) -> None:
    assert trained["epochs"] == SETTINGS["training.max_epochs"]
    assert trained["metrics"]["accuracy"] > 0.85
    for node in place.cluster.nodes[1:]:  # the head has no workers
        cache = Path(f"/proc/{node.pids('raylet')[0]}/root{place.directory}/cache")
        assert any(copy.name.startswith("corpus-") for copy in cache.iterdir())
    label = json.loads(place.run("predict", "--model", "store:model", "goal team match"))
    assert label["predicted_label"] == "sport"


def test_a_killed_training_carries_on(place: Place, trained: dict[str, Any]) -> None:
    command = ["train", "store:train.parquet", "--output", "store:again", *SET, "--workers", "2"]

    def has_checkpoint() -> bool:
        return any(name.endswith("history.json") for name in place.names("again/checkpoints/run"))

    kill_when(place, has_checkpoint, *command)
    result = json.loads(place.run(*command, "--json"))
    assert result["resumed"]
    assert result["seconds"] < AUTOSCALING_REQUESTS_EXPIRE_TIME_S, "it waited for itself"
    epochs = [place.table(f"{name}/history.parquet") for name in ("again", "model")]
    assert epochs[0]["epoch"].to_pylist() == [1, 2, 3, 4]
    losses = [table["training_loss"].to_pylist() for table in epochs]
    assert losses[0] == pytest.approx(losses[1], abs=1e-3)
    assert result["metrics"] == pytest.approx(trained["metrics"], abs=1e-3)
    assert place.names("again/checkpoints") == []


def test_a_killed_prediction_carries_on_and_a_second_one_is_refused(
    place: Place, trained: dict[str, Any]
) -> None:
    del trained
    output, parts = "out", 2
    command = ["batch-predict", "store:in", "--model", "store:model", "--output", f"store:{output}"]

    def are_there() -> bool:
        return sum(name.endswith(".parquet") for name in place.names(output)) >= parts

    kill_when(place, are_there, *command, "--workers", "2")
    first = place.start(*command, "--workers", "2", "--json")
    wait_until(lambda: first.poll() is not None or place.holder(output) == first.pid, SECONDS)
    second = place.start(*command, "--quiet")
    _, err = second.communicate(timeout=SECONDS)
    result = json.loads(ended(first))
    assert second.returncode == 2, err
    assert "Another command is at work" in err
    assert result["rows_out"] == NUM_FILES * ROWS_PER_FILE
    assert result["parts_reused"] >= parts
    check_rows(place, output)


def test_an_evaluation_and_its_report(place: Place, trained: dict[str, Any]) -> None:
    del trained
    command = ["evaluate", "store:train.parquet", "--model", "store:model"]
    result = json.loads(place.run(*command, "--output", "store:evaluation", "--json"))
    assert result["num_rows"] == 2_500
    assert place.run("report", "store:evaluation").strip().endswith("evaluation/report.html")


def test_a_killed_study_carries_on(place: Place) -> None:
    space = "search.space.model.hidden_dim={choice=[24,32,40]}"
    command = ["tune", "store:train.parquet", "--output", "store:study", *SET, "--set", space]
    command += ["--trials", "3", "--set", "search.grace_epochs=4"]

    def has_checkpoint() -> bool:
        return any(name.endswith("history.json") for name in place.names("study/ray"))

    kill_when(place, has_checkpoint, *command)
    result = json.loads(place.run(*command, "--json"))
    assert result["resumed"]
    assert sorted(trial["trial"] for trial in result["trials"]) == ["0", "1", "2"]
    assert {trial["state"] for trial in result["trials"]} == {"done"}
    epochs = place.table("study/epochs.parquet").to_pylist()
    assert sorted((row["trial"], row["epoch"]) for row in epochs) == [
        (trial, epoch) for trial in "012" for epoch in (1, 2, 3, 4)
    ]


def test_no_secret_and_nothing_else_is_left_anywhere(place: Place, trained: dict[str, Any]) -> None:
    del trained
    secret = S3_KEYS["AWS_SECRET_ACCESS_KEY"].encode()
    for entry in place.storage.list():
        assert secret not in place.storage.read(entry.name), entry.name
        assert not entry.name.endswith(LOCK_FILE)
    for log in Path(place.cluster.directory.name).glob("**/*.*"):
        if log.is_file() and log.suffix in (".log", ".out", ".err", ".txt"):
            assert secret not in log.read_bytes(), log
    assert {path.name for path in place.directory.iterdir()} == {"cache", "tmp"}
