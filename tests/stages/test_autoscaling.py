"""Tests on a cluster whose nodes Ray's autoscaler adds when work waits, and removes when idle."""

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.nodes import AutoscalingCluster
from tests.stages.conftest import write_rows
from tests.stages.test_interruption import wait_until
from tests.stages.test_nodes import start

pytestmark = [pytest.mark.ray, pytest.mark.soak]
SECONDS = 300
ROOT = Path(__file__).parents[2]
ROWS_OF_FILES = [2_000] * 8 + [40_000]
"""In the end, one worker has work, for longer than the others' nodes may be idle."""
IDLE_SECONDS = 3.0
CONFIG = """
[model]
hidden_dim = 192
wide = false
[training]
min_epochs = 1
max_epochs = 1
[search]
num_trials = 1
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[AutoscalingCluster]:
    with AutoscalingCluster(max_nodes=3, idle_seconds=IDLE_SECONDS) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows to train on, a lake of uneven files, and a config."""
    path = tmp_path_factory.mktemp("autoscaling")
    (path / "lake").mkdir()
    for i, num_rows in enumerate(ROWS_OF_FILES):
        write_lines(path / f"lake/f{i}.jsonl", num_rows, i)
    write_rows(path / "train.parquet", 1_500, 1000)
    (path / "config.toml").write_text(CONFIG)
    return path


def write_lines(path: Path, num_rows: int, seed: int) -> None:
    """Rows as JSON lines, which are one unit of work however many they are."""
    write_rows(path.parent.parent / "rows.parquet", num_rows, seed)
    rows = pq.read_table(path.parent.parent / "rows.parquet").to_pylist()
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def check_rows(files: Iterable[Path], output: Path) -> None:
    """Every row has come out once, in order, with its values."""
    for file in files:
        before = [json.loads(line) for line in file.read_text().splitlines()]
        after = pq.read_table(output / f"{file.name}.parquet")
        assert after.select(list(before[0])).to_pylist() == before, file
        assert after["predicted_label"].null_count == 0
    assert (output / "_SUCCESS").exists()


@pytest.fixture(scope="module")
def job(cluster: AutoscalingCluster, directory: Path) -> subprocess.CompletedProcess[str]:
    """A whole job on a cluster that has no worker node yet."""
    labelled, unlabelled = directory / "train.parquet", directory / "lake/f0.jsonl"
    data = ["--train", labelled, "--input", unlabelled, "--output", directory / "out"]
    scale = ["--config", directory / "config.toml", "--workers", "1:3", "--scale-up-within", "4m"]
    return subprocess.run(
        [sys.executable, ROOT / "jobs/run.py", *data, *scale],
        env={**cluster.environment, "RAY_ADDRESS": cluster.address},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )


def nodes_go(cluster: AutoscalingCluster) -> None:
    wait_until(lambda: list(cluster.alive()) == ["head"], SECONDS)


def test_a_job_waits_for_its_nodes_and_gives_them_back(
    cluster: AutoscalingCluster, directory: Path, job: subprocess.CompletedProcess[str]
) -> None:
    assert job.returncode == 0, job.stderr
    assert "Waiting for 1 CPU; the cluster has 0." in job.stderr
    check_rows([directory / "lake/f0.jsonl"], directory / "out/predictions")
    nodes_go(cluster)


def test_a_prediction_without_a_node_says_what_it_waits_for_and_grows_and_shrinks_with_the_cluster(
    cluster: AutoscalingCluster,
    directory: Path,
    job: subprocess.CompletedProcess[str],
    tmp_path: Path,
) -> None:
    assert job.returncode == 0, job.stderr
    nodes_go(cluster)
    output = tmp_path / "out"
    arguments = [directory / "lake", "--model", directory / "out/model"]
    process = start(cluster, "batch-predict", *arguments, "--output", output, "--workers", "1:3")
    _, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    check_rows(sorted((directory / "lake").glob("*.jsonl")), output)
    waiting = "Waiting for workers: 3 of 1 CPUs each are asked for, and the cluster has no CPUs."
    assert waiting in err
    assert err.index(waiting) < err.index("has joined")
    cpus = [int(count) for count in re.findall(r"has joined. The cluster has (\d) CPUs", err)]
    assert max(cpus) > 1, err
    assert "has gone: it was idle" in err
    nodes_go(cluster)
