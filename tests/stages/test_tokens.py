"""Two nodes with a token: no process of theirs does anything for those who lack it.

Ray answers two questions of everybody: the health check of gRPC (is it serving?), and, over HTTP,
the metrics of the agents.
"""

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
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import grpc
import pytest

from tests.ports import free_port
from tests.sockets import listeners
from tests.stages.test_interruption import wait_until

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
_HOLDER = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
@ray.remote(num_cpus=1)
class Holder:
    def is_up(self):
        return True
holders = [Holder.remote() for _ in range(2)]
ray.get([holder.is_up.remote() for holder in holders])
print("up", flush=True)
sys.stdin.read()
"""
_HOLDER_NAME = "ray::Holder"
_GRPC = [
    ("gcs_server", "NodeInfoGcsService/GetAllNodeInfo", 1),
    ("gcs_server", "InternalKVGcsService/InternalKVGet", 1),
    ("raylet", "NodeManagerService/GetSystemConfig", 2),
    ("raylet", "ObjectManagerService/Pull", 2),
    ("ray::DashboardA", "ReporterService/HealthCheck", 2),
    (_HOLDER_NAME, "CoreWorkerService/NumPendingTasks", 2),
]
"""Processes, a gRPC method of theirs, and how many of them have it."""
_AGENT_PORTS = (
    *("dashboard-agent-listen-port", "dashboard-agent-grpc-port"),
    *("runtime-env-agent-port", "metrics-export-port"),
)
"""Options of a node; with the defaults, another Ray on this machine may be in the way."""
_NO_SUCH_METHOD = ("UNIMPLEMENTED", "UNAVAILABLE")
"""Of a server of another kind, and of one that is not gRPC."""
_SECONDS_TO_START = 90
_TRIES = 3
_SYNC = "syncer.RaySyncer/StartSync"
_NODE_ID = ("node_id", "ab" * 28)


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
    started: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def client(self, token: str | None, code: str = _CLIENT) -> subprocess.Popen[str]:
        """Connect as a driver; by default, run a task on each node."""
        return subprocess.Popen(
            [sys.executable, "-c", code, self.address],
            env=environment(token),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def ask(self, path: str, token: str | None) -> tuple[int, bytes]:
        """Status and body with which the dashboard answers."""
        request = urllib.request.Request(f"http://{self.dashboard}{path}")
        if token is not None:
            request.add_header("Authorization", f"Bearer {token}")
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, b""

    def has_nodes(self, count: int) -> bool:
        """Wait until so many nodes are alive; False if one has ended, or it takes too long."""
        deadline = time.monotonic() + _SECONDS_TO_START
        while time.monotonic() < deadline and all(each.poll() is None for each in self.started):
            with suppress(OSError):
                status, body = self.ask("/nodes?view=summary", self.token)
                if status == 200 and body.count(b'"ALIVE"') == count:
                    return True
            time.sleep(0.2)
        return False

    def ports(self, command: str) -> set[int]:
        """Where the processes with this name listen."""
        found = [each for node in self.started for each in listeners(node.pid)]
        return {each.port for each in found if each.command == command}

    def call(self, command: str, method: str, token: str | None) -> list[str]:
        """The status of a gRPC call by each of these processes that has the method."""
        found = (call(port, method, token) for port in self.ports(command))
        return [status for status in found if status not in _NO_SUCH_METHOD]


def call(port: int, method: str, token: str | None, *more: tuple[str, str]) -> str:
    """The status of a gRPC call with an empty message and these metadata."""
    metadata = [("authorization", f"Bearer {token}")] if token else []
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary(f"/ray.rpc.{method}")(b"", timeout=20, metadata=[*metadata, *more])
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"


def start(token: str, directory: Path, *options: str) -> subprocess.Popen[bytes]:
    """A node that ends with its process group."""
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1"]
    ports = [f"--{name}={free_port()}" for name in _AGENT_PORTS]
    with (directory / f"{len(list(directory.iterdir()))}.log").open("wb") as log:
        return subprocess.Popen(
            [*command, "--disable-usage-stats", "--node-ip-address=127.0.0.1", *ports, *options],
            env=environment(token),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )


@contextmanager
def running(logs: Path, *options: str, num_nodes: int) -> Iterator[Nodes]:
    """A cluster whose head has these options. On a busy machine, Ray may need another try."""
    for _ in range(_TRIES):
        with trying(logs, *options) as nodes:
            if nodes.has_nodes(1):
                for _ in range(1, num_nodes):
                    nodes.started.append(start(nodes.token, logs, f"--address={nodes.address}"))
                if nodes.has_nodes(num_nodes):
                    yield nodes
                    return
    raise TimeoutError("Ray has not started")


@contextmanager
def trying(logs: Path, *options: str) -> Iterator[Nodes]:
    """The processes of a head with these options, which may not be up yet."""
    token, port, dashboard = secrets.token_hex(32), free_port(), free_port()
    found = Nodes(f"127.0.0.1:{port}", f"127.0.0.1:{dashboard}", token)
    head = ("--head", f"--port={port}", f"--dashboard-port={dashboard}")
    short = tempfile.TemporaryDirectory(prefix="ray-")  # a socket's path has at most 107 bytes
    found.started.append(start(token, logs, *head, *options, f"--temp-dir={short.name}"))
    try:
        yield found
    finally:
        for process in found.started:
            os.killpg(process.pid, signal.SIGTERM)
        for process in found.started:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        short.cleanup()


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    with running(tmp_path_factory.mktemp("logs"), num_nodes=2) as found:
        yield found


@pytest.fixture(scope="module")
def busy_nodes(nodes: Nodes) -> Iterator[Nodes]:
    """With an actor on each node."""
    driver = nodes.client(nodes.token, _HOLDER)
    try:
        assert driver.stdout is not None
        assert driver.stdout.readline() == "up\n"
        wait_until(lambda: len(nodes.ports(_HOLDER_NAME)) == 2, 60)
        yield nodes
    finally:
        driver.communicate(timeout=60)


def test_with_the_token_both_nodes_work(nodes: Nodes) -> None:
    deadline = time.monotonic() + 60
    while True:  # Ray may not know yet that the second node takes tasks
        client = nodes.client(nodes.token)
        output, errors = client.communicate(timeout=60)
        assert client.returncode == 0, errors
        if len(json.loads(output.splitlines()[-1])) == 2:
            break
        assert time.monotonic() < deadline, "the second node did not join"
    assert nodes.ask("/api/jobs/", nodes.token)[0] == 200


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
    assert nodes.ask(path, token)[0] in (401, 403)


@pytest.mark.parametrize(("command", "method", "count"), _GRPC)
def test_without_the_token_no_process_answers(
    busy_nodes: Nodes, command: str, method: str, count: int
) -> None:
    for token in (None, secrets.token_hex(32)):
        assert answers(busy_nodes, command, method, token, count) == ["UNAUTHENTICATED"] * count
    assert "UNAUTHENTICATED" not in answers(busy_nodes, command, method, busy_nodes.token, count)


def answers(nodes: Nodes, command: str, method: str, token: str | None, count: int) -> list[str]:
    """What so many processes answer: one that is busy may not be reached at once."""
    found: list[str] = []

    def all_answer() -> bool:
        found[:] = nodes.call(command, method, token)
        return len(found) == count

    wait_until(all_answer, 60)
    return found


@pytest.mark.parametrize("token", [None, secrets.token_hex(32)], ids=["none", "wrong"])
def test_without_the_token_nobody_becomes_a_node(busy_nodes: Nodes, token: str | None) -> None:
    gcs = int(busy_nodes.address.rpartition(":")[2])
    assert call(gcs, _SYNC, token, _NODE_ID) == "UNAUTHENTICATED"


@pytest.mark.soak  # it takes a minute to see what Ray does wrong
def test_without_the_token_nobody_ends_the_gcs(tmp_path: Path) -> None:
    with running(tmp_path, num_nodes=1) as nodes:
        gcs = int(nodes.address.rpartition(":")[2])
        status = call(gcs, _SYNC, None)
    if status == "UNAVAILABLE":
        pytest.xfail(
            "GCS of Ray 2.60 aborts at a call of RaySyncer without a node_id (a failed RAY_CHECK "
            "in ray_syncer_server.cc), for which it looks before the token"
        )
    assert status == "UNAUTHENTICATED"
