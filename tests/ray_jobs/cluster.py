"""A Ray cluster with a token and the jobs API, as a process of its own."""

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.nodes import RAY, descendants
from tests.ports import free_port

SECONDS = 240
_PATH = "/usr/local/bin:/usr/bin:/bin"
"""Of the head: the Python of the tests is not on it. Nor is the package that is tested."""
_PORTS = (
    *("port", "dashboard-port", "ray-client-server-port", "metrics-export-port"),
    *("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port"),
)


class User:
    """Who runs `distlstm` with the address and the token of a cluster."""

    def __init__(self, *, address: str, token: str) -> None:
        self.address = address
        self.token = token

    def environment(self, **changed: str | None) -> dict[str, str]:
        """The user's variables, with some changed, or without those that are None."""
        ray = {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
        }
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        values = {**kept, **ray, **changed}
        return {name: value for name, value in values.items() if value is not None}

    def start(self, *words: object, **changed: str | None) -> "subprocess.Popen[str]":
        """Start `distlstm WORDS`."""
        return subprocess.Popen(
            [sys.executable, "-m", "distlstm", *map(str, words)],
            env=self.environment(RAY_ADDRESS=self.address, **changed),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: object, **changed: str | None) -> "subprocess.CompletedProcess[str]":
        """Run `distlstm WORDS`."""
        process = self.start(*words, **changed)
        out, err = process.communicate(timeout=SECONDS)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def json(self, *words: object) -> Any:
        """What `distlstm WORDS` prints with `--json`, which comes before a submitted command."""
        before = words.index("--") if "--" in words else len(words)
        done = self.run(*words[:before], "--json", *words[before:])
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


def user_of_no_cluster() -> User:
    return User(address=f"http://127.0.0.1:{free_port()}", token="none")


class JobsCluster(User):
    """A head with its dashboard, and a user of it."""

    def __init__(self, directory: Path) -> None:
        ports = {name: free_port() for name in _PORTS}
        address = f"http://127.0.0.1:{ports['dashboard-port']}"
        super().__init__(address=address, token=secrets.token_hex(16))
        self.process = subprocess.Popen(
            [
                *(*RAY, "start", "--head", "--block", "--num-cpus=2"),
                *(f"--{name}={port}" for name, port in ports.items()),
                *("--dashboard-host=127.0.0.1", "--object-store-memory=200000000"),
                f"--temp-dir={directory}",
            ],
            env=self.environment(PATH=_PATH, PYTHONPATH=None),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def answers(self) -> bool:
        """Whether its node is alive, so that it takes jobs."""
        head = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(f"{self.address}/nodes?view=summary", headers=head)
        with suppress(OSError), urllib.request.urlopen(request, timeout=20) as answer:
            return b'"ALIVE"' in answer.read()
        return False

    def kill(self) -> None:
        """Kill all its processes."""
        for pid in [self.process.pid, *descendants(self.process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


@contextmanager
def jobs_cluster() -> Iterator[JobsCluster]:
    """A cluster that takes jobs. On a busy machine, Ray may need a second try."""
    with tempfile.TemporaryDirectory(prefix="jobs-", ignore_cleanup_errors=True) as directory:
        for attempt in range(4):
            cluster = JobsCluster(Path(directory) / str(attempt))  # short, as sockets lie below it
            try:
                until = time.monotonic() + SECONDS
                while cluster.process.poll() is None and time.monotonic() < until:
                    if cluster.answers():
                        yield cluster
                        return
                    time.sleep(0.3)
            finally:
                cluster.kill()
        raise TimeoutError("Ray has not started")
