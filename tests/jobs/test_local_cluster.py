"""`ray up jobs/local-cluster.yaml` for real, with this machine as the head.

SSH runs through a server of its own, without a port: the client starts `sshd -i` as its proxy. The
head has a HOME of its own. `ray stop` is never run, as it ends every Ray of the machine.
"""

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
BIN = Path(sys.executable).parent
TOKEN = "a-token-of-this-test-which-is-long-enough"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (SSHD and shutil.which("ssh") and shutil.which("rsync")),
        reason="ssh, sshd and rsync are not all installed",
    ),
    pytest.mark.skipif(
        os.geteuid() == 0 and not Path("/run/sshd").is_dir(),
        reason="sshd needs the directory /run/sshd",
    ),
]


@dataclass(frozen=True)
class Machines:
    """Where the user sits, and the head; both are this machine, with a HOME for each."""

    laptop: Path
    head: Path
    gcs: int
    dashboard: int

    def environment(self) -> dict[str, str]:
        """Of a command that the user runs."""
        mine = {"HOME": str(self.laptop), "RAY_AUTH_MODE": "token", "RAY_USAGE_STATS_ENABLED": "0"}
        kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        return kept | mine | {"PATH": f"{BIN}:{os.environ['PATH']}"}

    def ray(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run `ray` as the user would, from the top of the repository."""
        return subprocess.run(
            [str(BIN / "ray"), *arguments],
            cwd=ROOT,
            env=self.environment(),
            capture_output=True,
            text=True,
            timeout=240,
        )


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def write_ssh(directory: Path, home: Path) -> tuple[Path, str]:
    """Keys, and a server that sets HOME; returns the user's key and the proxy command."""
    for name in ("host", "user"):
        key = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
        subprocess.run(key, check=True)
    settings = {
        "HostKey": directory / "host",
        "AuthorizedKeysFile": directory / "user.pub",
        "PermitRootLogin": "prohibit-password",
        "PasswordAuthentication": "no",
        "StrictModes": "no",
        "UsePAM": "no",
        "PidFile": "none",
        "SetEnv": f"HOME={home}",
    }
    config = directory / "sshd_config"
    config.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
    return directory / "user", f"{SSHD} -i -f {config}"


def cluster_of_one(machines: Machines, ssh: Path) -> dict[str, Any]:
    """The file as it is in the repository, with this machine in the lines marked CHANGE.

    Two steps are left out: installing the package, which the environment of the tests already has,
    and `ray stop`.
    """
    cluster = dict(yaml.safe_load((ROOT / "jobs/local-cluster.yaml").read_text(encoding="utf-8")))
    key, proxy = write_ssh(ssh, machines.head)
    cluster["cluster_name"] = machines.head.parent.name
    cluster["provider"] |= {"head_ip": "127.0.0.1", "worker_ips": []}
    cluster["auth"] = {
        "ssh_user": getpass.getuser(),
        "ssh_private_key": str(key),
        "ssh_proxy_command": proxy,
    }
    cluster |= {"min_workers": 0, "max_workers": 0}
    cluster["setup_commands"] = [c for c in cluster["setup_commands"] if "pip install" not in c]
    (start,) = (c for c in cluster["head_start_ray_commands"] if c != "ray stop")
    agent, client = free_ports(2)
    options = (
        f"--port={machines.gcs} --dashboard-port={machines.dashboard} --num-cpus=1 "
        f"--dashboard-agent-listen-port={agent} --ray-client-server-port={client} "
        f"--temp-dir={machines.head.parent}/ray"
    )
    cluster["head_start_ray_commands"] = [start.replace("--port=6379", options)]
    cluster["worker_start_ray_commands"] = []
    return cluster


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    directory = Path(tempfile.mkdtemp(prefix="up-"))  # short, as sockets lie below it
    gcs, dashboard = free_ports(2)
    found = Machines(directory / "laptop", directory / "head", gcs, dashboard)
    for home in (found.laptop, found.head / "venv/bin"):
        home.mkdir(parents=True)
    token = found.laptop / ".ray/auth_token"
    token.parent.mkdir()
    token.write_text(TOKEN)
    program = found.head / "venv/bin/ray"
    program.write_text(f'#!/bin/sh\n[ "$1" != stop ] && PATH={BIN}:$PATH exec {BIN}/ray "$@"\n')
    program.chmod(0o755)
    (found.head / ".bashrc").touch()
    (found.head / "object-store.env").write_text("AWS_ENDPOINT_URL=http://store.example:9000\n")
    yield found
    for home in (found.laptop, found.head):
        end_processes_of(home)
    for state in Path("/tmp/ray").glob(f"cluster-{directory.name}.*"):
        state.unlink()
    shutil.rmtree(directory, ignore_errors=True)


def end_processes_of(home: Path) -> None:
    """Kill what runs with this HOME, which nothing else has."""
    for environ in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if f"HOME={home}".encode() in environ.read_bytes().split(b"\0"):
                os.kill(int(environ.parent.name), signal.SIGKILL)


def test_ray_up_makes_a_cluster_that_runs_jobs_with_the_token_and_the_stores_variables(
    machines: Machines,
) -> None:
    ssh = machines.head.parent / "ssh"
    ssh.mkdir()
    file = machines.laptop / "cluster.yaml"
    file.write_text(yaml.safe_dump(cluster_of_one(machines, ssh)))
    assert "ray stop" not in file.read_text()

    up = machines.ray("up", "--yes", "--no-config-cache", "--disable-usage-stats", str(file))
    assert up.returncode == 0, up.stdout[-4000:] + up.stderr[-4000:]

    assert (machines.head / ".ray/auth_token").read_text() == TOKEN
    assert (machines.head / "distlstm/distlstm/cli.py").exists()
    address = f"http://127.0.0.1:{machines.dashboard}"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{address}/api/jobs/", timeout=30)
    program = ["printenv", "AWS_ENDPOINT_URL"]
    job = machines.ray("job", "submit", "--address", address, "--", *program)
    assert job.returncode == 0, job.stdout[-4000:] + job.stderr[-4000:]
    assert "http://store.example:9000" in job.stdout
