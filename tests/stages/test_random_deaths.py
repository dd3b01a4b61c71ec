"""`make soak`: a node of three is killed under each command, ten times, at random moments.

All CPUs of the nodes are taken. In every other run, the command is killed with the node, as if it
had run there, and is started again.
"""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.nodes import Cluster, Node
from tests.stages.test_node_deaths import STUDY, losses, result_of
from tests.stages.test_nodes import EPOCHS, SMALL, check_rows, start, start_verify

pytestmark = [pytest.mark.ray, pytest.mark.soak]
NUM_NODES, NUM_RUNS = 3, 10
WORKERS = ["--workers", "1:3", "--json"]
EXACT = {
    "training.precision": "fp32",
    "model.dropout": 0,
    "model.state_dropout": 0,
    "model.token_dropout": 0,
}
"""So that any number of workers gives the same losses."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


def alive(cluster: Cluster) -> list[Node]:
    """The nodes that live, but for the head."""
    return [node for node in cluster.nodes[1:] if node.process.poll() is None]


def arguments_of(command: str, lake: Path, model: Path) -> list[object]:
    applied = [command, lake / "lake", "--model", model, *WORKERS]
    exact = [word for name, value in EXACT.items() for word in ("--set", f"{name}={value}")]
    return {
        "batch-predict": applied,
        "evaluate": applied,
        "train": [command, lake / "train.parquet", *SMALL, *EPOCHS, *exact, *WORKERS],
        "tune": [command, lake / "train.parquet", *STUDY],
    }[command]


@dataclass(frozen=True)
class Ended:
    """A command that has ended well."""

    output: Path
    result: dict[str, Any]


@dataclass(frozen=True)
class Whole(Ended):
    """One that nothing has disturbed."""

    seconds: float


def run_whole(cluster: Cluster, arguments: Sequence[object], output: Path) -> Whole:
    started = time.monotonic()
    result = result_of(start(cluster, *arguments, "--output", output))
    return Whole(output, result, time.monotonic() - started)


def run_broken(
    cluster: Cluster, arguments: Sequence[object], output: Path, *, seed: int, whole: Whole
) -> Ended:
    """Run a command during which a node dies."""
    rng = random.Random(f"{arguments[0]} {seed}")
    process = start(cluster, *arguments, "--output", output)
    time.sleep(rng.uniform(0.1, 0.95) * whole.seconds)
    dying, kills_command = rng.choice(alive(cluster)), seed % 2 == 1
    if kills_command:
        process.kill()
    dying.kill()
    if kills_command:
        process.communicate()
        process = start(cluster, *arguments, "--output", output)
    return Ended(output, result_of(process))


@pytest.fixture(scope="module")
def whole_runs() -> dict[str, Whole]:
    """By command; each is run once, and nothing disturbs it."""
    return {}


@pytest.mark.parametrize("seed", range(NUM_RUNS))
@pytest.mark.parametrize("command", ["batch-predict", "evaluate", "train", "tune"])
def test_a_command_ends_as_if_no_node_had_died(
    cluster: Cluster,
    lake: Path,
    slow_model: Path,
    whole_runs: dict[str, Whole],
    tmp_path_factory: pytest.TempPathFactory,
    command: str,
    seed: int,
) -> None:
    arguments = arguments_of(command, lake, slow_model)
    while len(alive(cluster)) < NUM_NODES:
        cluster.add(1)
    if command not in whole_runs:
        output = tmp_path_factory.mktemp("whole") / command
        whole_runs[command] = run_whole(cluster, arguments, output)
    whole, output = whole_runs[command], tmp_path_factory.mktemp("broken") / command
    broken = run_broken(cluster, arguments, output, seed=seed, whole=whole)
    CHECKS[command](broken, whole, lake)


def check_prediction(broken: Ended, whole: Ended, lake: Path) -> None:
    assert broken.result["rows_out"] == whole.result["rows_out"]
    check_rows(lake, broken.output)
    for file in sorted(whole.output.glob("*.parquet")):
        labels = [
            pq.read_table(path, columns=["predicted_label"])
            for path in (file, broken.output / file.name)
        ]
        assert labels[0].equals(labels[1]), file
    verified = start_verify(broken.output)
    assert verified.returncode == 0, verified.stdout


def check_evaluation(broken: Ended, whole: Ended, lake: Path) -> None:
    del lake
    assert broken.result["per_label"] == whole.result["per_label"]
    assert broken.result["log_loss"] == pytest.approx(whole.result["log_loss"])


def check_training(broken: Ended, whole: Ended, lake: Path) -> None:
    del lake
    histories = [pq.read_table(run.output / "history.parquet") for run in (broken, whole)]
    epochs = [history["epoch"].to_pylist() for history in histories]
    assert epochs[0] == epochs[1]
    found = [history["training_loss"].to_pylist() for history in histories]
    # Two workers add gradients in another order than three, and after some epochs it shows.
    assert found[0][:2] == pytest.approx(found[1][:2], rel=1e-3)
    assert found[0] == pytest.approx(found[1], rel=0.02)
    accuracies = [run.result["metrics"]["accuracy"] for run in (broken, whole)]
    assert accuracies[0] == pytest.approx(accuracies[1], abs=0.02)


def check_study(broken: Ended, whole: Ended, lake: Path) -> None:
    del lake
    assert {trial["state"] for trial in broken.result["trials"]} == {"done"}
    assert losses(broken.output) == losses(whole.output)


CHECKS = {
    "batch-predict": check_prediction,
    "evaluate": check_evaluation,
    "train": check_training,
    "tune": check_study,
}
