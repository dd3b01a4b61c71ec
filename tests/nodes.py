"""Ray clusters of several nodes, each a few processes of this machine."""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FakeMultiNodeProvider,
)

from tests.ports import free_port
from tests.stages.test_interruption import wait_until

SECONDS = 120
RAY = (sys.executable, "-m", "ray.scripts.scripts")
_QUICK_HEALTH_CHECKS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "3000",
    "RAY_health_check_failure_threshold": "3",
}
_NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
_EMPTY_TABLES = ("auth", "file_mounts")
_EMPTY_LISTS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "cluster_synced_files",
    "rsync_exclude",
    "rsync_filter",
)
_LIST = "print(json.dumps([n for n in ray.nodes() if n['Alive']]))"
_DRAIN = (
    "from ray._raylet import GcsClient; from ray.core.generated import autoscaler_pb2 as pb; "
    "reason = pb.DrainNodeReason.Value('DRAIN_NODE_REASON_PREEMPTION'); "
    "print(GcsClient(address={address!r}).drain_node({node!r}, reason, 'a test', {deadline}))"
)


@dataclass(frozen=True)
class Node:
    """A running node."""

    name: str
    process: subprocess.Popen[bytes]

    def pids(self, title: str = "") -> list[int]:
        """Its processes, or those whose command line contains a title."""
        return [pid for pid in descendants(self.process.pid) if title in command_line(pid)]

    def kill(self) -> None:
        """Kill all its processes at once, as if the machine had lost its power."""
        for pid in [self.process.pid, *self.pids()]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


class Cluster:
    """A head without CPUs, where commands run, and nodes that can be killed, drained and added."""

    def __init__(
        self, *, host: str = "", within: Sequence[str] = (), quick_health_checks: bool = True
    ) -> None:
        """Describe a head that listens on a host, and is started `within` that host.

        `within` is a command that runs another one, such as in a namespace.
        """
        self.directory = tempfile.TemporaryDirectory(prefix="nodes-")
        self.host = host
        self.within = within
        self.address = f"{host or '127.0.0.1'}:{free_port()}"
        self.nodes: list[Node] = []
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"},
            **(_QUICK_HEALTH_CHECKS if quick_health_checks else {}),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": secrets.token_hex(16),
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def __enter__(self) -> Self:
        """Start the head."""
        port = self.address.rpartition(":")[2]
        options = ["--head", f"--port={port}", "--include-dashboard=false"]
        self._start("head", 0, *options, within=self.within, host=self.host)
        return self

    def __exit__(self, *_: object) -> None:
        """Kill all nodes."""
        for node in reversed(self.nodes):
            node.kill()
        self.directory.cleanup()

    def add(self, num_cpus: int, *, host: str = "", within: Sequence[str] = ()) -> Node:
        """Start a node, and wait until it is part of the cluster."""
        name, options = f"node{len(self.nodes)}", [f"--address={self.address}"]
        return self._start(name, num_cpus, *options, within=within, host=host)

    def _start(
        self,
        name: str,
        num_cpus: int,
        *options: str,
        within: Sequence[str] = (),
        host: str = "",
        variables: Mapping[str, str] = _NO_VARIABLES,
    ) -> Node:
        own = [f"--num-cpus={num_cpus}", f"--labels=name={name}", "--object-store-memory=200000000"]
        if host:
            own.append(f"--node-ip-address={host}")
        if host or name == "head":
            own.append(f"--temp-dir={self.directory.name}/{name}")
        with (Path(self.directory.name) / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*within, *RAY, "start", "--block", *options, *own],
                stdout=log,
                stderr=log,
                env={**self.environment, **variables},
                start_new_session=True,
            )
        self.nodes.append(Node(name, process))
        wait_until(lambda: name in self.alive(), SECONDS)
        return self.nodes[-1]

    def alive(self) -> dict[str, str]:
        """The ids of the nodes that are alive, by name; the autoscaler's are named by their id."""
        found = self._ask(_LIST) or []
        return {node["Labels"].get("name", node["NodeID"]): node["NodeID"] for node in found}

    def drain(self, node: Node, *, seconds: float) -> None:
        """Announce the end of a node, as a cloud does that takes a spot instance back."""
        deadline = f"int((time.time() + {seconds}) * 1000)"
        node_id = self.alive()[node.name]
        self._ask(_DRAIN.format(address=self.address, node=node_id, deadline=deadline))

    def _ask(self, code: str) -> Any:
        """The JSON that code prints in a process that is connected; None if that fails."""
        start = "import json, ray, time; "
        start += f"ray.init({self.address!r}, log_to_driver=False, logging_level=50); "
        done = subprocess.run(
            [*self.within, sys.executable, "-c", start + code],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        try:
            return json.loads(done.stdout.strip().split("\n")[-1])
        except ValueError:
            return None


class AutoscalingCluster(Cluster):
    """A head without CPUs, and nodes of one CPU that Ray's autoscaler adds and removes.

    Ray's own class of this name calls `ray stop`, which ends all clusters of the machine.
    """

    def __init__(self, *, max_nodes: int, idle_seconds: float) -> None:
        super().__init__()
        self.config = {
            "cluster_name": "autoscaling",
            "max_workers": max_nodes,
            "idle_timeout_minutes": idle_seconds / 60,
            "provider": {
                "type": "external",  # `fake_multinode` needs a file that is not in Ray's wheel
                "module": f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}",
                "head_node_id": FAKE_HEAD_NODE_ID,
                "gcs_address": self.address,
                "use_node_id_as_ip": True,
                "disable_node_updaters": True,
                "disable_launch_config_check": True,
            },
            "head_node_type": "ray.head.default",
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                "worker": {
                    "resources": {"CPU": 1, "object_store_memory": 100_000_000},
                    "node_config": {},
                    "max_workers": max_nodes,
                },
            },
            **{name: {} for name in _EMPTY_TABLES},
            **{name: [] for name in _EMPTY_LISTS},
        }

    def __enter__(self) -> Self:
        """Start the head and the autoscaler."""
        file = Path(self.directory.name) / "autoscaling.json"
        file.write_text(json.dumps(self.config))
        port = self.address.rpartition(":")[2]
        head = ["--head", f"--port={port}", "--include-dashboard=false"]
        variables = {
            "AUTOSCALER_UPDATE_INTERVAL_S": "1",
            "RAY_FAKE_CLUSTER": "1",
            "RAY_enable_autoscaler_v2": "1",
            "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
            "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        }
        self._start("head", 0, *head, f"--autoscaling-config={file}", variables=variables)
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the head, and what the autoscaler has started."""
        super().__exit__()
        wait_until(lambda: not kill_those_with(self.environment["RAY_AUTH_TOKEN"]), SECONDS)


def kill_those_with(token: str) -> list[int]:
    """Kill the processes that have this token in their environment; returns which they were."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if token.encode() in (process / "environ").read_bytes():
                found.append(int(process.name))
                os.kill(found[-1], signal.SIGKILL)
    return found


def descendants(pid: int) -> list[int]:
    """The processes below one, the deepest last."""
    children: dict[int, list[int]] = {}
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(process.name))
    found, left = [], [pid]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
