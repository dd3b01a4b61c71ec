"""The jobs API of a Ray cluster, with errors that name what to do next."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from distlstm import environment
from distlstm.errors import RunError, UserError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

_LOGGERS = (
    "ray.dashboard.modules.dashboard_sdk",
    "ray.dashboard.modules.job.sdk",
    "ray._private.runtime_env.packaging",
)
"""What Ray's client logs of its own work; its errors are raised."""
_REQUIRED, _FORBIDDEN = "Authentication required", "Authentication failed"


def connected(address: str | None) -> "JobSubmissionClient":
    """A client of the cluster at an address, or at RAY_API_SERVER_ADDRESS or RAY_ADDRESS.

    Raises:
        UserError: no cluster answers, or it does not accept the token that Ray's places have.
    """
    with environment.connecting(address), answers(address):
        from ray.job_submission import JobSubmissionClient

        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.WARNING)
        token = environment.cluster_token()
        headers = {} if token is None else {"Authorization": f"Bearer {token.text}"}
        return JobSubmissionClient(address, headers=headers)


class NoSuchJobError(UserError):
    """The cluster has no job of this id."""


@contextmanager
def answers(address: str | None, *, job: str | None = None) -> Iterator[None]:
    """Turn what Ray raises in a block that asks the cluster (about a job) into our errors.

    Raises:
        UserError: see `connected`; or the cluster has no such job.
        RunError: the cluster could not do it.
    """
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise UserError(_without_access(str(error), _named(address))) from error
    except ConnectionError as error:
        raise UserError(_without_cluster(address)) from error
    except (RuntimeError, ValueError) as error:
        if job is not None and "does not exist" in str(error):
            raise NoSuchJobError(f"There is no job {job}. `distlstm jobs` lists them.") from error
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise RunError(
            f"The Ray cluster at {_named(address)} could not do it: {reason}."
        ) from error


def _named(address: str | None) -> str:
    """The address that Ray uses, for messages."""
    variables = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
    return address or next(filter(None, map(os.environ.get, variables)), "this machine")


def _without_cluster(address: str | None) -> str:
    named = _named(address)
    if named == "this machine":
        return (
            "No cluster is named, and no Ray runs on this machine. Give --address or set "
            "RAY_API_SERVER_ADDRESS to the cluster's dashboard, such as http://127.0.0.1:8265."
        )
    return (
        f"No Ray cluster answers at {named}. The address is that of its dashboard, such as "
        "http://127.0.0.1:8265; check that the cluster runs, and the tunnel to it, if there is one."
    )


def _without_access(reason: str, named: str) -> str:
    token = environment.cluster_token()
    if token is None:
        return (
            f"The Ray cluster at {named} wants a token, and there is none here. Set "
            "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or write it to ~/.ray/auth_token."
        )
    if reason.startswith(_REQUIRED):
        return f"The Ray cluster at {named} wants a token, and got none from {token.source}."
    return (
        f"The Ray cluster at {named} does not accept the token of {token.source}. Use the token "
        "with which the cluster was started."
    )
