"""`distlstm serve`: a model behind HTTP on Ray Serve, until it is stopped."""

import contextlib
import importlib.util
import ipaddress
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from distlstm.errors import RunError, UserError
from distlstm.stages.run.events import Note, OnEvent
from distlstm.stages.run.models import fingerprint_at, metadata_of
from distlstm.stages.run.results import ServeResult
from distlstm.stages.run.session import Capacity, Resources, ray_session
from distlstm.stages.serving.settings import APPLICATION, TOKEN_VARIABLE, ServiceSettings
from distlstm.storage import Directory
from distlstm.worker_range import WorkerRange

_MOST_REQUESTS_AT_ONCE = 1_000
_REQUESTS_PER_REPLICA = 32
"""With more at once, another replica is started, up to the most."""
_SECONDS_TO_ANSWER = 60
_SECONDS_TO_FINISH = 60


@dataclass(frozen=True, kw_only=True)
class ServeRequest:
    """Which model to serve, and where."""

    model: Directory
    resources: Resources
    host: str
    port: int
    replicas: WorkerRange
    is_embedded: bool
    """Whether Ray is started for this service."""
    token_digest: bytes | None = None
    """SHA-256 of the token that clients must send."""

    @property
    def url(self) -> str:
        """Where the service is reached."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def is_direct(self) -> bool:
        """Whether the only replica listens on the port itself."""
        return self.is_embedded and self.replicas.most == 1


def serve(request: ServeRequest, *, stop: threading.Event, on_event: OnEvent) -> ServeResult:
    """Serve the model until `stop` is set, or a signal ends the process.

    Raises:
        UserError: the model is damaged, the port is taken, or a token is missing.
        RunError: the service could not be started, or ended by itself.
    """
    _check(request)
    started = time.perf_counter()
    fingerprint = fingerprint_at(request.model, metadata_of(request.model))
    with ray_session(request.resources, on_event) as capacity:
        replicas = capacity.workers(request.replicas, default=1, waits=True)
        with _stopped_by_signal(stop), _running(request, replicas, capacity):
            on_event(
                Note(
                    f"{request.model.location} is served at {request.url} (see {request.url}/docs)"
                )
            )
            _wait(stop)
    return ServeResult(
        model=request.model.location,
        fingerprint=fingerprint,
        url=request.url,
        seconds=time.perf_counter() - started,
    )


def _check(request: ServeRequest) -> None:
    if importlib.util.find_spec("uvicorn") is None or importlib.util.find_spec("fastapi") is None:
        raise UserError("serve needs Ray Serve. Install it: pip install 'distlstm[serve]'.")
    if not _is_loopback(request.host) and request.token_digest is None:
        raise UserError(
            f"The host {request.host} can be reached from other machines, so clients need a token. "
            f"Set {TOKEN_VARIABLE} to one, or serve on 127.0.0.1."
        )
    if request.is_embedded:
        _check_port(request.host, request.port)


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name, which can stand for any address
        return False


def _check_port(host: str, port: int) -> None:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except OSError as error:
        raise UserError(
            f"The service cannot listen on {host}, port {port}: {error.strerror}. Choose another "
            "with --host and --port."
        ) from error


@contextlib.contextmanager
def _running(request: ServeRequest, replicas: WorkerRange, capacity: Capacity) -> Iterator[None]:
    """Run the service for a block; at its end, requests in flight are answered first."""
    from ray import serve as ray_serve

    _start(request)
    try:
        _deploy(request, replicas, capacity)
        yield
    finally:
        ray_serve.delete(APPLICATION)
        if request.is_embedded:
            ray_serve.shutdown()


def _start(request: ServeRequest) -> None:
    """Start Ray Serve, or find the one of the cluster; in one, its first user chose the address."""
    from ray import serve as ray_serve
    from ray.exceptions import RayError
    from ray.serve.context import _get_global_client
    from ray.serve.schema import LoggingConfig

    port = 0 if request.is_direct else request.port
    options = {"host": request.host, "port": port, "request_timeout_s": _SECONDS_TO_ANSWER}
    try:
        ray_serve.start(http_options=options, logging_config=LoggingConfig(enable_access_log=False))
    except (RayError, TimeoutError) as error:
        raise RunError(
            f"Ray Serve could not be started: {_last_line(error)}. Try again."
        ) from error
    found = _get_global_client().http_config
    if (found.host, found.port) != (request.host, port):
        raise UserError(
            f"Ray Serve already runs on this cluster, at {found.host}, port {found.port}. Give "
            "these as --host and --port, or end it with `serve shutdown`."
        )


def _last_line(error: object) -> str:
    return str(error).strip().rpartition("\n")[2].strip().removesuffix(".")


def _deploy(request: ServeRequest, replicas: WorkerRange, capacity: Capacity) -> None:
    from ray import serve as ray_serve

    from distlstm.stages.serving.replica import ServiceReplica

    settings = ServiceSettings(
        model=request.model,
        num_threads=capacity.cpus_per_worker,
        use_gpu=capacity.use_gpu,
        token_digest=request.token_digest,
        is_embedded=request.is_embedded,
    )
    deployment: Any = ray_serve.deployment(
        ray_serve.ingress()(ServiceReplica),
        name="model",
        ray_actor_options={
            "num_cpus": capacity.cpus_per_worker,
            "num_gpus": int(capacity.use_gpu),
        },
        max_ongoing_requests=_MOST_REQUESTS_AT_ONCE,
        max_queued_requests=_MOST_REQUESTS_AT_ONCE,
        graceful_shutdown_timeout_s=_SECONDS_TO_FINISH,
        graceful_shutdown_wait_loop_s=0.2,
        logging_config={"enable_access_log": False},
        **_scaling(replicas),
    )
    try:
        ray_serve.run(deployment.bind(settings), name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        raise RunError(f"The service could not be started: {_reason(error)}") from error


def _scaling(replicas: WorkerRange) -> dict[str, Any]:
    if replicas.least == replicas.most:
        return {"num_replicas": replicas.most}
    return {
        "autoscaling_config": {
            "min_replicas": replicas.least,
            "max_replicas": replicas.most,
            "target_ongoing_requests": _REQUESTS_PER_REPLICA,
        }
    }


def _reason(error: Exception) -> str:
    """The last line of what Ray Serve tells of a deployment that failed."""
    from ray import serve as ray_serve

    application = ray_serve.status().applications.get(APPLICATION)
    messages = [str(error)]
    if application is not None:
        messages += [application.message]
        messages += [each.message for each in application.deployments.values()]
    return _last_line("\n".join(messages))


def _wait(stop: threading.Event) -> None:
    """Wait for the end; raises a RunError if the application failed for good."""
    from ray import serve as ray_serve

    while not stop.wait(1.0):
        application = ray_serve.status().applications.get(APPLICATION)
        if application is None:
            raise RunError("The service was deleted from the cluster by someone else.")


@contextlib.contextmanager
def _stopped_by_signal(stop: threading.Event) -> Iterator[None]:
    """Let SIGTERM end the service as asked for; `called` restores the handler."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
    yield
