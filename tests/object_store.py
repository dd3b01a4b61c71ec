"""Servers that answer like the object stores, on loopback, for tests."""

import base64
import hmac
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from urllib.request import Request, urlopen

import pytest

from tests.google_server import TOKEN
from tests.ports import free_port, wait_for

BUCKET = "bucket"
SCHEMES = ["s3", "gs", "az"]
AZURITE = os.environ.get("AZURITE")
S3_KEYS = {
    "AWS_ACCESS_KEY_ID": "an-access-key",
    "AWS_SECRET_ACCESS_KEY": "a-very-secret-key",
    "AWS_REGION": "us-east-1",
}
AZURE_ACCOUNT = "account"
AZURE_KEY = base64.b64encode(b"a-very-secret-key").decode()


@dataclass(frozen=True)
class ObjectStore:
    """A running server with a bucket."""

    port: int
    scheme: str = "s3"
    bucket: str = BUCKET

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def variables(self) -> dict[str, str]:
        return self.variables_at(self.endpoint)

    def variables_at(self, endpoint: str) -> dict[str, str]:
        """What the environment must have if the server is reached at this endpoint."""
        if self.scheme == "gs":
            return {"GOOGLE_BASE_URL": endpoint, "GOOGLE_BEARER_TOKEN": TOKEN}
        if self.scheme == "az":
            return {
                "AZURE_STORAGE_ACCOUNT_NAME": AZURE_ACCOUNT,
                "AZURE_STORAGE_ACCOUNT_KEY": AZURE_KEY,
                "AZURE_STORAGE_ENDPOINT": f"{endpoint}/{AZURE_ACCOUNT}",
            }
        return S3_KEYS | {"AWS_ENDPOINT_URL": endpoint}


@contextmanager
def running_store(scheme: str = "s3") -> Iterator[ObjectStore]:
    """A server that is a process of its own, with one empty bucket."""
    port = free_port()
    server = subprocess.Popen(
        _command(scheme, port),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"AZURITE_ACCOUNTS": f"{AZURE_ACCOUNT}:{AZURE_KEY}"},
    )
    try:
        wait_for(port)
        _make_bucket(scheme, port)
        yield ObjectStore(port, scheme)
    finally:
        server.kill()
        server.wait()


@contextmanager
def running_stores() -> Iterator[dict[str, ObjectStore]]:
    """A server for each scheme that has one here, and the variables of all in the environment."""
    schemes = [scheme for scheme in SCHEMES if scheme != "az" or AZURITE]
    with ExitStack() as servers:
        stores = {scheme: servers.enter_context(running_store(scheme)) for scheme in schemes}
        variables = [store.variables.items() for store in stores.values()]
        servers.enter_context(environment_of(dict(pair for pairs in variables for pair in pairs)))
        yield stores


def store_of(stores: dict[str, ObjectStore], scheme: str) -> ObjectStore:
    """The server of a scheme; the test is skipped where there is none."""
    if scheme not in stores:
        pytest.skip("AZURITE does not name the executable azurite-blob")
    return stores[scheme]


def _command(scheme: str, port: int) -> list[str]:
    if scheme == "gs":
        return [sys.executable, "-m", "tests.google_server", str(port), BUCKET]
    if scheme == "az":
        quiet = ["--silent", "--disableTelemetry", "--inMemoryPersistence"]
        return [str(AZURITE), *quiet, "--blobHost", "127.0.0.1", "--blobPort", str(port)]
    return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]


def _make_bucket(scheme: str, port: int) -> None:
    if scheme == "s3":
        urlopen(Request(f"http://127.0.0.1:{port}/{BUCKET}", method="PUT")).close()
    elif scheme == "az":
        _make_container(f"http://127.0.0.1:{port}")


def _make_container(endpoint: str) -> None:
    """Make an Azure container: the request is signed with the key of the account."""
    resource = f"/{AZURE_ACCOUNT}/{BUCKET}"
    headers = {"x-ms-date": formatdate(usegmt=True), "x-ms-version": "2021-08-06"}
    signed = "\n".join(
        [
            *("PUT", *[""] * 11),
            *(f"{name}:{value}" for name, value in headers.items()),
            *(f"/{AZURE_ACCOUNT}{resource}", "restype:container"),
        ]
    )
    digest = hmac.digest(base64.b64decode(AZURE_KEY), signed.encode(), "sha256")
    headers["Authorization"] = f"SharedKey {AZURE_ACCOUNT}:{base64.b64encode(digest).decode()}"
    address = f"{endpoint}{resource}?restype=container"
    urlopen(Request(address, method="PUT", headers=headers | {"Content-Length": "0"})).close()


@contextmanager
def environment_of(variables: dict[str, str]) -> Iterator[None]:
    """Set variables for a block; other settings of object stores are unset."""
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith(("AWS_", "GOOGLE_", "AZURE_"))]:
            patch.delenv(name)
        for name, value in variables.items():
            patch.setenv(name, value)
        yield
