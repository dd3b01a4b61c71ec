"""Environment variables that Ray and torch read when they are imported, or a process as it starts.

A command, a function of the API and the tests' conftest set them first thing. In a process that has
imported Ray before, only its authentication settings are read again. Variables that the user has
set stay as they are.
"""

import os
import platform
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

_VARIABLES = {
    "MALLOC_ARENA_MAX": "1",  # the threads of a worker reuse each other's freed memory
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_LOG_LEVEL": "ERROR",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S": "1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "20",  # then it tries again with the nodes there are
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's default, 15, leaves a worker 1/25 of a busy core
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
}

# A training step needs the same large blocks as the one before it. Allocating them anew takes a
# sixth of the step, so a process keeps the blocks of up to 256 MiB that it frees.
_KEEP_FREED_BLOCKS = {
    "MALLOC_MMAP_THRESHOLD_": str(256 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
}
_FIRST_GLIBC_TO_KEEP_THEM = (2, 35)
"""Earlier versions reject the first setting above 32 MiB (according to their source), and the
second alone makes them keep less than their default. Tested with 2.36."""

_EMBEDDED = {
    "RAY_AUTH_MODE": "token",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # its only node is never drained
}

_RAYS_OWN = ("RAY_", "PYTHONBREAKPOINT")
_NONE: Mapping[str, str] = {}

_NO_IDLE_WORKERS = {
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
}


_DIRECT = {
    "RAY_SERVE_ENABLE_DIRECT_INGRESS": "1",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0",  # nobody routes to this replica
    "RAY_SERVE_PORT_QUARANTINE_S": "0",  # a replica that replaces a dead one gets its port
}
_SERVING = {
    "RAY_metrics_report_interval_ms": "2000",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "30",  # on a busy machine, a process starts slowly
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
    "RAY_SERVE_REQUEST_PATH_LOG_BUFFER_SIZE": "1000",
    "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",  # a thread fewer for each request to pass
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
}


def serving(port: int, *, one_replica: bool) -> dict[str, str]:
    """Variables of an embedded Ray for Ray Serve; a running cluster has its own.

    The only replica listens on the port itself. Several are reached through Serve's proxy, which
    takes some milliseconds and is limited to some hundred requests a second.
    """
    if not one_replica:
        return _SERVING
    port_range = {
        f"RAY_SERVE_DIRECT_INGRESS_{bound}_HTTP_PORT": str(port + extra)
        for bound, extra in (("MIN", 0), ("MAX", 1))
    }
    return _SERVING | _DIRECT | port_range


def prepare(address: str | None = None, *, idle_workers: bool = True) -> None:
    """Set these variables in this process, for good; see `prepared`."""
    for name, value in _variables(address, idle_workers=idle_workers).items():
        os.environ.setdefault(name, value)


@contextmanager
def prepared(
    address: str | None = None, *, idle_workers: bool = True, more: Mapping[str, str] = _NONE
) -> Iterator[None]:
    """Quiet Ray, and protect an embedded one by a token, for the time of a block.

    An embedded Ray gets a random token that only this process and its children have. For a cluster
    (`address` or RAY_ADDRESS), the user's own token settings stay as they are.

    By default, an embedded Ray starts with an idle process per core. Ray Train cannot use them: it
    gives its processes an environment of their own.

    An embedded Ray also gets the variables in `more`.
    """
    variables = _variables(address, idle_workers=idle_workers)
    if is_embedded(address):
        variables |= more
    try:
        with defaults(variables):
            _let_ray_read_again()
            yield
    finally:
        _let_ray_read_again()


@contextmanager
def connecting(address: str | None) -> Iterator[None]:
    """Let Ray's client of the jobs API find its cluster and its token, for the time of a block.

    Ray would prefer RAY_API_SERVER_ADDRESS and RAY_ADDRESS to the address that it is given, and it
    sends a token only in the mode `token`.
    """
    variables = {"RAY_AUTH_MODE": "token"} if cluster_token() else {}
    try:
        with defaults(variables):
            if address is not None:
                os.environ["RAY_API_SERVER_ADDRESS"] = address
            _let_ray_read_again()
            yield
    finally:
        _let_ray_read_again()


@dataclass(frozen=True)
class Token:
    """A token for a cluster, and where it was found."""

    text: str = field(repr=False)
    source: str


def cluster_token() -> Token | None:
    """The token in the places where Ray looks for it, in Ray's order; None if there is none."""
    text = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if text:
        return Token(text, "RAY_AUTH_TOKEN")
    path = os.environ.get("RAY_AUTH_TOKEN_PATH")
    file = Path(path) if path else Path.home() / ".ray" / "auth_token"
    try:
        text = file.read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return None
    return Token(text, str(file)) if text else None


def is_submitted_job() -> bool:
    """Whether this is the command of a job that `distlstm submit` has started."""
    return os.environ.get("RAY_JOB_STOP_SIGNAL") == "SIGINT"


@contextmanager
def defaults(variables: Mapping[str, str]) -> Iterator[None]:
    """Set the given variables that are not set yet, for the time of a block.

    At its end, variables that Ray has set in the meantime are restored too.
    """
    before = dict(os.environ)
    for name, value in variables.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        changed = [name for name in os.environ if name.startswith(_RAYS_OWN) or name in variables]
        for name in changed:
            if name in before:
                os.environ[name] = before[name]
            else:
                del os.environ[name]


def _variables(address: str | None, *, idle_workers: bool) -> dict[str, str]:
    variables = _VARIABLES | ({} if idle_workers else _NO_IDLE_WORKERS)
    if _glibc_version() >= _FIRST_GLIBC_TO_KEEP_THEM:
        variables |= _KEEP_FREED_BLOCKS
    if is_embedded(address):
        variables |= _EMBEDDED | {"RAY_AUTH_TOKEN": _token()}
    return variables


def is_embedded(address: str | None) -> bool:
    """Whether a command with this address starts a Ray of its own."""
    return address is None and "RAY_ADDRESS" not in os.environ and not _ray_is_connected()


def _ray_is_connected() -> bool:
    return "ray" in sys.modules and bool(sys.modules["ray"].is_initialized())


def _let_ray_read_again() -> None:
    """Make Ray, if it is imported but not connected, read its authentication settings anew.

    It keeps those that it found at its import, and its first token.
    """
    raylet = sys.modules.get("ray._raylet")
    if raylet is not None and not _ray_is_connected():
        raylet.Config.initialize("")
        raylet.AuthenticationTokenLoader.instance().reset_cache()


@cache
def _token() -> str:
    """The token of this process."""
    return secrets.token_hex(32)


def _glibc_version() -> tuple[int, ...]:
    """The version of glibc; empty with another C library."""
    name, version = platform.libc_ver()
    return tuple(map(int, version.split("."))) if name == "glibc" else ()
