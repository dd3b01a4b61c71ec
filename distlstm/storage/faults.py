"""Failures of an object store: which pass, and what a user reads about the others.

The messages of the library show requests, answers and addresses, which may have credentials in
them (an Azure address may be signed). Only what is known to be harmless is taken from them.
"""

import re
import time
from collections.abc import Callable
from random import uniform
from typing import TypeVar

from distlstm.storage.base import UnreachableError

Result = TypeVar("Result")
PATIENCE_SECONDS = 120.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_STATUS = re.compile(r"status code: (\d{3})")
_CODE = re.compile(r"<Code>(\w+)</Code>")
_FATAL_STATUS = re.compile(r"status code: (?!408|409|429)[34]\d\d")
_CREDENTIALS = re.compile(r"performing token request|/latest/api/token|/latest/meta-data/")
"""Calls for credentials, where the environment has none, to the machine's provider."""
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound")
_REFUSED = ("PermissionDeniedError", "UnauthenticatedError")
_REFUSED_STATUS = re.compile(r"status code: 40[13]")
"""Refused listings are not among the errors above."""
_ANSWERS = ("AlreadyExistsError", "PreconditionError", "NotModifiedError")
"""These are no failures: callers handle them."""
_LASTING = ("NotSupportedError", "InvalidPathError", "UnknownConfigurationKeyError")


def retried(work: Callable[[], Result], uri: str) -> Result:
    """The result of a call to an object store, which is repeated while its failures may pass.

    Raises:
        FileNotFoundError, UnreachableError: with the URI and the reason, and nothing else.
    """
    import obstore.exceptions as of_store

    until, pause = time.monotonic() + PATIENCE_SECONDS, _FIRST_PAUSE
    while True:
        try:
            return work()
        except (of_store.BaseError, FileNotFoundError, BrokenOffError) as error:
            if type(error).__name__ in _ANSWERS:
                raise
            if not _may_pass(error) or time.monotonic() + pause > until:
                raise clean(error, uri) from None
        time.sleep(uniform(pause / 2, pause))  # noqa: S311 (no secret)
        pause = min(2 * pause, _LONGEST_PAUSE)


class BrokenOffError(Exception):
    """An answer ended before its announced size."""


def _may_pass(error: Exception) -> bool:
    if isinstance(error, FileNotFoundError) or type(error).__name__ in _REFUSED + _LASTING:
        return False
    return _FATAL_STATUS.search(str(error)) is None


def clean(error: Exception, uri: str) -> OSError:
    """The error for the user."""
    text, code = str(error), _CODE.search(str(error))
    if code and code[1] in _NO_BUCKET:
        return FileNotFoundError(f"{uri} does not exist: there is no such bucket")
    if isinstance(error, FileNotFoundError):
        return FileNotFoundError(f"{uri} does not exist")
    if _CREDENTIALS.search(text):
        return UnreachableError(f"{uri}: no credentials were found; set them in the environment")
    if type(error).__name__ in _REFUSED or _REFUSED_STATUS.search(text):
        return UnreachableError(
            f"{uri}: access was denied{f' ({code[1]})' if code else ''}. Check the credentials in "
            "the environment, and their rights"
        )
    return UnreachableError(f"{uri}: {_reason(text, code[1] if code else '')}")


def _reason(text: str, code: str) -> str:
    status = _STATUS.search(text)
    if status:
        return f"the object store answered {status[1]}{f' ({code})' if code else ''}"
    if "kind: Connect" in text:
        return "the object store cannot be reached; is its endpoint right?"
    if "imeout" in text or "TimedOut" in text:
        return "the object store did not answer in time"
    return "the connection to the object store broke off"
