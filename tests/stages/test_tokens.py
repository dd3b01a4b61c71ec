"""Two nodes with a token: GCS and dashboard answer nobody who lacks it."""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.ports import free_port

pytestmark = [pytest.mark.ray, pytest.mark.fault]

_CLIENT = """
import json, sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
@ray.remote(num_cpus=1, scheduling_strategy="SPREAD")
def node():
    import time
    time.sleep(0.5)
    return ray.get_runtime_context().get_node_id()
print(json.dumps(sorted(set(ray.get([node.remote() for _ in range(2)])))), flush=True)
"""


def environment(token: str | None) -> dict[str, str]:
    """The variables of a client that has this token, or none."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    kept["RAY_USAGE_STATS_ENABLED"] = "0"
    if token is None:
        return kept | {"RAY_AUTH_MODE": "disabled"}
    return kept | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}


@dataclass(frozen=True)
class Nodes:
    """A cluster of two nodes."""

    address: str
    dashboard: str
    token: str

    def client(self, token: str | None) -> subprocess.Popen[str]:
        """Connect as a driver and run a task on each node."""
        return subprocess.Popen(
            [sys.executable, "-c", _CLIENT, self.address],
            env=environment(token),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def get(self, path: str, token: str | None) -> int:
        """The status with which the dashboard answers."""
        request = urllib.request.Request(f"http://{self.dashboard}{path}")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code


def start(token: str, directory: Path, *options: str) -> subprocess.Popen[bytes]:
    """A node that ends with its process group."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
    with (directory / f"{len(list(directory.iterdir()))}.log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--disable-usage-stats", "--node-ip-address=127.0.0.1", *options],
            env=environment(token),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


def wait_until_up(nodes: Nodes) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if nodes.get("/api/version", nodes.token) == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise AssertionError("the dashboard did not start")


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    token, port, dashboard = secrets.token_hex(32), free_port(), free_port()
    logs = tmp_path_factory.mktemp("logs")
    found = Nodes(f"127.0.0.1:{port}", f"127.0.0.1:{dashboard}", token)
    head = ("--head", f"--port={port}", f"--dashboard-port={dashboard}")
    short = tempfile.TemporaryDirectory(prefix="ray-")  # a socket's path has at most 107 bytes
    started = [start(token, logs, *head, f"--temp-dir={short.name}")]
    try:
        wait_until_up(found)
        started.append(start(token, logs, f"--address={found.address}"))
        yield found
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGTERM)
        for process in started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        short.cleanup()


def test_with_the_token_both_nodes_work(nodes: Nodes) -> None:
    deadline = time.monotonic() + 60
    while True:  # the second node may still be starting
        client = nodes.client(nodes.token)
        output, errors = client.communicate(timeout=60)
        assert client.returncode == 0, errors
        if len(json.loads(output.splitlines()[-1])) == 2:
            break
        assert time.monotonic() < deadline, "the second node did not join"
    assert nodes.get("/api/jobs/", nodes.token) == 200


def test_without_the_token_no_driver_gets_in(nodes: Nodes) -> None:
    clients = [nodes.client(None), nodes.client(secrets.token_hex(32))]
    for client in clients:
        output, errors = client.communicate(timeout=60)
        assert client.returncode != 0
        assert output == ""
        assert nodes.token not in errors


@pytest.mark.parametrize("token", [None, secrets.token_hex(32)], ids=["none", "wrong"])
@pytest.mark.parametrize("path", ["/api/jobs/", "/api/v0/tasks", "/nodes?view=summary"])
def test_without_the_token_the_dashboard_refuses(
    nodes: Nodes, path: str, token: str | None
) -> None:
    assert nodes.get(path, token) in (401, 403)
