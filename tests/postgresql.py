"""A PostgreSQL server of the tests' own: on loopback, with a password, ended with the block."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.ports import free_port, wait_for

PASSWORD = "s3cret-of-the-database"
_USER = "searcher"
_NOBODY = 65534
_INSTALLED = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")))
INITDB = shutil.which("initdb") or shutil.which("initdb", path=os.pathsep.join(_INSTALLED))


@dataclass
class Server:
    """A server that runs, or was stopped and can be started again on the same port and data."""

    directory: Path
    port: int
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        command = [str(_binary("postgres")), "-D", str(self.directory / "data"), *options]
        log = (self.directory / "log").open("ab")
        self.process = subprocess.Popen(_unprivileged(command), stdout=log, stderr=log)
        wait_for(self.port)
        is_ready = [str(_binary("pg_isready")), "-h", "127.0.0.1", "-p", str(self.port), "-q"]
        until = time.monotonic() + 60
        while subprocess.run(is_ready, check=False).returncode != 0:
            assert time.monotonic() < until, "the server does not start"
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)  # ends the connections, too
            self.process.wait(timeout=60)
            self.process = None

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")


@contextmanager
def postgresql() -> Iterator[Server]:
    """A server with a database `postgres` and a user, who needs the password."""
    with tempfile.TemporaryDirectory(prefix="distlstm-postgresql-") as name:
        directory = Path(name)
        secret = directory / "password"
        secret.write_text(PASSWORD)
        if os.getuid() == 0:
            for path in (directory, secret):
                os.chown(path, _NOBODY, _NOBODY)
        command = [str(INITDB), "-D", str(directory / "data"), "-U", _USER, "--no-sync"]
        command += ["--auth=scram-sha-256", f"--pwfile={secret}", "--encoding=UTF8"]
        subprocess.run(_unprivileged(command), check=True, stdout=subprocess.DEVNULL)
        server = Server(directory, free_port())
        try:
            server.start()
            yield server
        finally:
            server.stop()


def _binary(name: str) -> Path:
    return Path(str(INITDB)).resolve().with_name(name)


def _unprivileged(command: list[str]) -> list[str]:
    """The server refuses to run as root."""
    if os.getuid() != 0:
        return command
    return ["setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups", *command]
