"""`serve`: a model that answers over HTTP."""

import hashlib
import os
import threading
from typing import TYPE_CHECKING

from distlstm import environment
from distlstm.api.arguments import (
    AnyPath,
    Listener,
    Workers,
    called,
    directory_at,
    resources_of,
)
from distlstm.errors import UserError
from distlstm.worker_range import WorkerRange

if TYPE_CHECKING:
    from distlstm.stages.run.results import ServeResult

_SHORTEST_TOKEN = 16


def serve(
    model: AnyPath,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    replicas: Workers = 1,
    gpu: bool | None = None,
    cpus_per_worker: int = 1,
    address: str | None = None,
    stop: threading.Event | None = None,
    debug: bool = False,
    on_event: Listener = None,
) -> "ServeResult":
    """Answer over HTTP with a model, until Ctrl-C, SIGTERM, or `stop`; needs `distlstm[serve]`.

    A request has the scores of `batch_predict`. If a training replaces the model in its directory,
    the service changes over to it without failing a request. If the environment variable
    DISTLSTM_SERVE_TOKEN is set, clients must send it as a bearer token; beyond loopback it must be
    set.

    Args:
        model: a MODEL directory or its URI.
        host: address to listen on.
        port: port to listen on.
        replicas: processes with the model, or the least and the most.
        gpu: use GPUs [default: if the cluster has any].
        cpus_per_worker: CPUs, and threads, of each replica.
        address: Ray cluster to use [default: RAY_ADDRESS, else one started here].
        stop: ends the service when it is set.
        debug: let Ray's own output through.
        on_event: called with every event.

    Raises:
        UserError: a wrong argument, a damaged model, a taken port, or a missing token.
        RunError: the service could not be started, or was ended by someone else.
    """
    wanted = WorkerRange.of(1 if replicas is None else replicas)
    if wanted.least < 1:
        raise UserError(f"replicas is {wanted}; a service needs at least one at all times.")
    if type(port) is not int or not 1 <= port <= 65_534:
        raise UserError(f"port is {port!r}; it must be a whole number from 1 to 65534.")
    is_embedded = environment.is_embedded(address)
    variables = environment.serving(port, one_replica=wanted.most == 1)
    with called(address, idle_workers=False, variables=variables, on_event=on_event) as listener:
        from distlstm.stages import serve as work

        request = work.ServeRequest(
            model=directory_at(model),
            resources=resources_of(
                workers=None,
                gpu=gpu,
                cpus_per_worker=cpus_per_worker,
                address=address,
                debug=debug,
            ),
            host=host,
            port=port,
            replicas=wanted,
            is_embedded=is_embedded,
            token_digest=_token_digest(),
        )
        return work.serve(request, stop=stop or threading.Event(), on_event=listener)


def _token_digest() -> bytes | None:
    """The digest of the token that clients must send; the token itself goes no further."""
    from distlstm.stages.serving.settings import TOKEN_VARIABLE

    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not token:
        return None
    if len(token) < _SHORTEST_TOKEN or not token.isascii() or not token.isprintable():
        raise UserError(
            f"The token in {TOKEN_VARIABLE} must have at least {_SHORTEST_TOKEN} characters, all "
            "of them printable ASCII. Make one with: openssl rand -hex 32."
        )
    return hashlib.sha256(token.encode()).digest()
