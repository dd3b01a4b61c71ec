"""Where an embedded Ray and torch in it listen, by the list of sockets of this machine."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distlstm.model.directory import save_model
from tests.commands import TINY
from tests.model.test_directory import model
from tests.sockets import LOOPBACK, Listener, listeners

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs the /proc of Linux"),
]
_TRAINING = "ray::RayTrainWo"


def run_and_watch(*command: object) -> set[Listener]:
    """Run a command on an embedded Ray; the sockets on which its processes listen meanwhile."""
    process = subprocess.Popen(
        [sys.executable, "-m", "distlstm", *map(str, command)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
    )
    seen: set[Listener] = set()
    deadline = time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        seen |= listeners(process.pid)
        time.sleep(0.2)
    process.kill()
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return seen


def test_all_processes_of_an_embedded_ray_listen_on_loopback_only(tmp_path: Path) -> None:
    save_model(model(), tmp_path / "model")
    pq.write_table(pa.table({"text": ["c d"] * 400_000}), tmp_path / "in.parquet")
    command = ["batch-predict", tmp_path / "in.parquet", "--model", tmp_path / "model"]
    seen = run_and_watch(*command, "--output", tmp_path / "out")
    commands = {each.command for each in seen}
    assert {"gcs_server", "raylet"} <= commands
    assert any(command.startswith("ray::") for command in commands)
    assert {each for each in seen if each.address not in LOOPBACK} == set()


def test_two_workers_of_a_training_listen_on_loopback_only(
    corpus_file: Path, tmp_path: Path
) -> None:
    command = ["train", corpus_file, "--workers", 2, *TINY]
    seen = run_and_watch(*command, "--output", tmp_path / "out")
    workers = {each for each in seen if each.command.startswith(_TRAINING)}
    assert len(workers) > 2, "each worker has a port for Ray, and one for gloo"
    assert {each for each in seen if each.address not in LOOPBACK} == set()
