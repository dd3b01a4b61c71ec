"""What a replica of the service is started with, and the limits of a request."""

from dataclasses import dataclass

from distlstm.storage import Directory

TOKEN_VARIABLE = "DISTLSTM_SERVE_TOKEN"  # noqa: S105 (the name of a variable)
"""The environment variable with the token that clients send."""
APPLICATION = "distlstm"
"""Name of the application in Ray Serve."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that one request may contain; more is refused."""

    body_bytes: int = 2**20
    texts: int = 1_000
    text_chars: int = 100_000
    """Characters of one text."""


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """What a replica needs; it is sent to the cluster, so it has no secret."""

    model: Directory
    num_threads: int = 1
    use_gpu: bool = False
    token_digest: bytes | None = None
    """SHA-256 of the token that clients must send; None: no token is asked for."""
    is_embedded: bool = False
    """Whether all of Ray is on this machine, and listens on loopback only."""
    limits: Limits = Limits()
