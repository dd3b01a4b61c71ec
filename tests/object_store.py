"""A server that answers like S3, on loopback, for tests."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.request import Request, urlopen

import pytest

from tests.ports import free_port, wait_for

BUCKET = "bucket"
VARIABLES = {
    "AWS_ACCESS_KEY_ID": "an-access-key",
    "AWS_SECRET_ACCESS_KEY": "a-very-secret-key",
    "AWS_REGION": "us-east-1",
}


@dataclass(frozen=True)
class ObjectStore:
    """A running server with a bucket."""

    port: int
    bucket: str = BUCKET

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        return VARIABLES | {"AWS_ENDPOINT_URL": self.endpoint}


@contextmanager
def running_store() -> Iterator[ObjectStore]:
    """A server that is a process of its own, with one empty bucket."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(port)
        urlopen(Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")).close()
        yield ObjectStore(port)
    finally:
        server.kill()
        server.wait()


@contextmanager
def environment_of(variables: dict[str, str]) -> Iterator[None]:
    """Set variables for a block; other settings of object stores are unset."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "AZURE_"))]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        yield
