"""An MLflow server of the tests' own, where MLFLOW_SERVER names the executable."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SERVER = os.environ.get("MLFLOW_SERVER")


@contextmanager
def mlflow_server(executable: str, directory: Path) -> Iterator[str]:
    """The address of a server that answers; it ends with the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address, store = f"http://127.0.0.1:{port}", f"sqlite:///{directory / 'mlflow.db'}"
    command = [executable, "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store, "--default-artifact-root", directory.as_uri()]
    server = subprocess.Popen(command, cwd=directory, start_new_session=True)
    try:
        deadline = time.monotonic() + 60
        while not answers(f"{address}/health"):
            assert time.monotonic() < deadline, "the server does not answer"
            time.sleep(0.1)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=1):
            return True
    except OSError:
        return False
