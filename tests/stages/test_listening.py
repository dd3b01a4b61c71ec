"""Where an embedded Ray listens, by the list of sockets of this machine."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distlstm.model.directory import save_model
from tests.model.test_directory import model
from tests.nodes import descendants

pytestmark = [
    pytest.mark.ray,
    pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs the /proc of Linux"),
]
_LISTENS = "0A"
_LOOPBACK = ("0100007F", "0" * 16 + "FFFF0000" + "0100007F", "0" * 24 + "01000000")


def inodes(pid: int) -> Iterator[str]:
    """The sockets of a process."""
    for name in Path(f"/proc/{pid}/fd").iterdir():
        target = str(name.readlink())
        if target.startswith("socket:["):
            yield target[len("socket:[") : -1]


def addresses(root: int) -> set[tuple[str, str]]:
    """The command and the address of each listening socket of a process and those below it."""
    owners = {}
    try:
        for pid in (root, *descendants(root)):
            owners |= dict.fromkeys(inodes(pid), Path(f"/proc/{pid}/comm").read_text().strip())
    except OSError:
        return set()  # a process ended meanwhile: the next look is better
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {
        (owners[row[9]], row[1].partition(":")[0])
        for row in rows
        if row[3] == _LISTENS and row[9] in owners
    }


def test_all_processes_of_an_embedded_ray_listen_on_loopback_only(tmp_path: Path) -> None:
    save_model(model(), tmp_path / "model")
    pq.write_table(pa.table({"text": ["c d"] * 400_000}), tmp_path / "in.parquet")
    command = ["batch-predict", tmp_path / "in.parquet", "--model", tmp_path / "model"]
    process = subprocess.Popen(
        [sys.executable, "-m", "distlstm", *map(str, command), "--output", str(tmp_path / "out")],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"},
    )
    seen: set[tuple[str, str]] = set()
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline:
        seen |= addresses(process.pid)
        time.sleep(0.1)
    process.kill()
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    commands = {command for command, _ in seen}
    assert {"gcs_server", "raylet"} <= commands
    assert any(command.startswith("ray::") for command in commands)
    assert {each for each in seen if each[1] not in _LOOPBACK} == set()
