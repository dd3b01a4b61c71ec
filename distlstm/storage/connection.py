"""Connections to object stores, with the settings and credentials of the environment."""

import os
from datetime import timedelta
from functools import lru_cache
from importlib.util import find_spec
from typing import Any

from distlstm.errors import UserError
from distlstm.storage.location import is_object_uri

_PREFIXES = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
_ENDPOINTS = (
    *("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"),
    *("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT", "GOOGLE_BASE_URL"),
)
_RETRIES = {
    "max_retries": 8,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {
        "init_backoff": timedelta(milliseconds=50),
        "max_backoff": timedelta(seconds=3),
        "base": 2,
    },
}
_TIMES = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=30),
    "timeout": timedelta(hours=1),  # of a whole body; a stalled one ends by read_timeout
}


def connection(scheme: str, bucket: str) -> Any:
    """The connection of this process to a bucket.

    Raises:
        UserError: the settings in the environment are wrong.
    """
    prefix = _PREFIXES[scheme]
    settings = {name: value for name, value in os.environ.items() if name.startswith(prefix)}
    return _connect(scheme, bucket, tuple(sorted(settings.items())))


@lru_cache(maxsize=64)
def _connect(scheme: str, bucket: str, settings: tuple[tuple[str, str], ...]) -> Any:
    from obstore.store import AzureStore, GCSStore, S3Store

    client = {**_TIMES, "allow_http": _is_plain_http(dict(settings))}
    common: dict[str, Any] = {"client_options": client, "retry_config": _RETRIES}
    try:
        if scheme == "gs":
            return GCSStore(bucket, **common)
        if scheme == "az":
            return AzureStore(bucket, **common)
        return S3Store(bucket, **common, **_boto3_credentials())
    except Exception as error:
        raise UserError(
            f"{scheme}://{bucket} cannot be opened with the settings in the environment "
            f"({type(error).__name__}). {_advice(scheme, str(error))}"
        ) from None


def _advice(scheme: str, reason: str) -> str:
    if "Account must be specified" in reason:
        return "Set AZURE_STORAGE_ACCOUNT_NAME; connection strings are not read."
    return f"Check the variables that begin with {_PREFIXES[scheme]}."


def table_options(location: str) -> dict[str, str]:
    """What libraries of table formats need to be told besides the environment."""
    is_plain = is_object_uri(location) and _is_plain_http(dict(os.environ))
    return {"allow_http": "true"} if is_plain else {}


def _is_plain_http(settings: dict[str, str]) -> bool:
    """Whether an endpoint that the user named has no TLS."""
    return any(settings.get(name, "").startswith("http://") for name in _ENDPOINTS)


def _boto3_credentials() -> dict[str, Any]:
    """Profiles and single sign-on, if boto3 is there and the environment has no key."""
    if "AWS_ACCESS_KEY_ID" in os.environ or find_spec("boto3") is None:
        return {}
    import boto3
    from obstore.auth.boto3 import Boto3CredentialProvider

    session = boto3.Session()
    if session.get_credentials() is None:
        return {}
    return {"credential_provider": Boto3CredentialProvider(session)}
