"""A day of a team's service, on one machine: `make demo-service`.

It starts a Ray cluster with a token and a server that answers like S3 (moto), then runs commands as
a user of both: a study, a model and predictions as jobs, labels for what is new in the evening, a
comparison, a service over HTTP, and the metrics of the cluster. What it starts ends with it.
"""

import json
import os
import secrets
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from distlstm.demo.corpus import build_stdlib_corpus

_ROWS = 3_000
_SMALL = (
    "--set model.hidden_dim=32 --set model.embedding_dim=32 --set training.max_epochs=3 "
    "--set training.min_epochs=3"
)
_RAY_PORTS = (
    *("port", "dashboard-port", "ray-client-server-port"),
    *("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "runtime-env-agent-port"),
)
"""Options of `ray start`; with the defaults, another Ray on this machine would be in the way."""
_SECONDS_TO_START = 90.0
_TRIES = 3


@dataclass(frozen=True)
class Team:
    """What a member of the team has: the environment, and the address of the bucket."""

    environment: dict[str, str]
    endpoint: str

    def run(self, command: str) -> None:
        """Print a command and run it."""
        print(f"\n$ distlstm {command}", flush=True)
        subprocess.run(_words("distlstm", command), env=self.environment, check=True)

    @contextmanager
    def serve(self, command: str, *, port: int) -> Iterator[str]:
        """Run a service for a block; yields its address."""
        print(f"\n$ distlstm {command} &", flush=True)
        address = f"http://127.0.0.1:{port}"
        with _process(_words("distlstm", command), self.environment):
            _wait(f"{address}/healthz")
            yield address

    def put(self, path: Path, key: str) -> None:
        """Copy a file to the bucket."""
        _put(f"{self.endpoint}/lake/{key}", path.read_bytes())


def main() -> None:
    """Run the day in a directory, which keeps the corpus and the index of the runs."""
    directory = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-service").absolute()
    with ExitStack() as stack:
        ports = {name: _free_port() for name in ("metrics", "s3", "serve")}
        team = _start(stack, ports)
        _upload(team, directory)
        _work(team, directory)
        _serve(team, ports["serve"])
        _scrape(ports["metrics"])


def _start(stack: ExitStack, ports: dict[str, int]) -> Team:
    """Start the store and the cluster, which end with the stack."""
    endpoint = f"http://127.0.0.1:{ports['s3']}"
    shared = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")} | {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "team",
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
        "AWS_REGION": "us-east-1",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    stack.enter_context(_process(_words("moto.server", f"-p {ports['s3']}"), shared))
    _wait(endpoint)
    _put(f"{endpoint}/lake", b"")
    dashboard = _start_ray(stack, shared, metrics_port=ports["metrics"])
    print(
        f"A Ray cluster with a token is at {dashboard}, the bucket s3://lake at {endpoint}.",
        flush=True,
    )
    return Team(shared | {"RAY_API_SERVER_ADDRESS": dashboard}, endpoint)


def _start_ray(stack: ExitStack, environment: dict[str, str], *, metrics_port: int) -> str:
    """Start the cluster; the address of its dashboard. On a busy machine, Ray needs another try."""
    for _ in range(_TRIES):
        attempt = stack.enter_context(ExitStack())
        temporary = attempt.enter_context(tempfile.TemporaryDirectory(prefix="ray-"))
        ports = {name: _free_port() for name in _RAY_PORTS} | {"metrics-export-port": metrics_port}
        options = " ".join(f"--{name}={port}" for name, port in ports.items())
        head = "start --head --block --num-cpus=2 --node-ip-address=127.0.0.1"
        words = _words("ray.scripts.scripts", f"{head} {options} --temp-dir={temporary}")
        attempt.enter_context(_process(words, environment | {"RAY_AUTH_MODE": "token"}))
        dashboard = f"http://127.0.0.1:{ports['dashboard-port']}"
        if _has_a_node(dashboard, environment["RAY_AUTH_TOKEN"]):
            return dashboard
        attempt.close()
    raise TimeoutError("Ray has not started.")


def _has_a_node(dashboard: str, token: str) -> bool:
    """Wait until the cluster's node is alive; False if that takes too long."""
    headers = {"Authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"{dashboard}/nodes?view=summary", headers=headers)
    until = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < until:
        with suppress(OSError), urllib.request.urlopen(request, timeout=20) as answer:
            if b'"ALIVE"' in answer.read():
                return True
        time.sleep(0.3)
    return False


def _upload(team: Team, directory: Path) -> None:
    """Put labelled rows, test rows and the morning's posts into the bucket."""
    corpus = build_stdlib_corpus(directory / "data")
    table = pq.read_table(corpus.train).slice(0, _ROWS)
    pq.write_table(table, directory / "labelled.parquet")
    team.put(directory / "labelled.parquet", "labelled.parquet")
    team.put(corpus.test, "test.parquet")
    posts = sorted(corpus.unlabelled.rglob("*.parquet"))
    team.put(posts[0], "posts/morning.parquet")
    pq.write_table(pq.read_table(posts[-1]).slice(0, 500), directory / "evening.parquet")


def _work(team: Team, directory: Path) -> None:
    """Submit a study, a model, its evaluation and predictions; then label what is new."""
    study = "tune s3://lake/labelled.parquet --output s3://lake/runs/study --trials 3 --workers 1"
    team.run(f"submit --name search -- {study} {_SMALL}")
    best = "--config s3://lake/runs/study/best.toml"
    model = "train s3://lake/labelled.parquet --output s3://lake/runs/model --workers 2"
    team.run(f"submit --name nightly-model -- {model} {best}")
    tested = "evaluate s3://lake/test.parquet --model s3://lake/runs/model"
    team.run(f"submit -- {tested} --output s3://lake/runs/evaluation")
    labels = (
        "submit --name nightly-labels -- batch-predict s3://lake/posts "
        "--model s3://lake/runs/model --output s3://lake/runs/labels --columns module"
    )
    team.run(labels)
    print("\nIn the evening there are new posts. The same command labels them, and only them.")
    team.put(directory / "evening.parquet", "posts/evening.parquet")
    team.run(labels)
    team.run("jobs")
    team.run("runs s3://lake/runs")
    team.run("report s3://lake/runs")


def _serve(team: Team, port: int) -> None:
    """Serve the model, and ask for the labels of two texts."""
    with team.serve(f"serve --model s3://lake/runs/model --port {port}", port=port) as address:
        body = json.dumps({"texts": ["Return the sum of a list of numbers.", "Open a socket."]})
        print(f"\n$ curl -s -X POST {address}/predict -d '{body}'")
        request = urllib.request.Request(f"{address}/predict", data=body.encode())
        with urllib.request.urlopen(request, timeout=60) as answer:
            print(answer.read().decode(), flush=True)


def _scrape(port: int) -> None:
    """Print what Prometheus would read of the predictions."""
    address = f"http://127.0.0.1:{port}/metrics"
    print(f"\n$ curl -s {address} | grep distlstm_rows_predicted_total")
    with urllib.request.urlopen(address, timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    print("\n".join(line for line in lines if line.startswith("ray_distlstm_rows_predicted_total")))


def _words(module: str, arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *shlex.split(arguments)]


@contextmanager
def _process(words: list[str], environment: dict[str, str]) -> Iterator[None]:
    """A program and its children, for the time of a block."""
    process = subprocess.Popen(
        words,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        process.terminate()  # it ends its own children
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _put(address: str, content: bytes) -> None:
    headers = {"Content-Type": "application/octet-stream"}
    request = urllib.request.Request(address, data=content, headers=headers, method="PUT")
    urllib.request.urlopen(request, timeout=60).close()


def _wait(address: str) -> None:
    """Wait until something answers at an address."""
    until = time.monotonic() + _SECONDS_TO_START
    while time.monotonic() < until:
        try:
            urllib.request.urlopen(address, timeout=20).close()
            return
        except urllib.error.HTTPError:  # it wants a token, so it is there
            return
        except OSError:
            time.sleep(0.3)
    raise TimeoutError(f"Nothing answers at {address}.")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
