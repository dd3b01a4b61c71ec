"""Where the record of a study is kept: a file in the STUDY, or a database that a team shares."""

import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy.exc import IntegrityError, ProgrammingError, SQLAlchemyError

from distlstm.database_url import DatabaseUrl, database_of
from distlstm.errors import RunError, UserError

_DRIVER = "psycopg"
_TRIES = 6
_SECONDS_BETWEEN_TRIES = 0.5
_IN_TRACEBACK = re.compile(r"^sqlalchemy\.exc\.\w+: (?:\(\S+\) )?(.*)$", re.MULTILINE)
_CONNECTION = {"connect_timeout": 10, "fallback_application_name": "distlstm"}


def in_file(path: Path) -> optuna.storages.RDBStorage:
    """SQLite in a file. The path is not part of the URL, where `?` and `%` would be special."""
    connect = partial(sqlite3.connect, path, check_same_thread=False)
    return optuna.storages.RDBStorage("sqlite:///study", engine_kwargs={"creator": connect})


def in_database(url: str) -> optuna.storages.RDBStorage:
    """A PostgreSQL database; libpq reads the address, and finds the password by itself.

    Raises:
        UserError: it cannot be opened, or psycopg is not installed.
    """
    DatabaseUrl().check(url, "search.storage")  # a config that was made in Python is not checked
    if find_spec(_DRIVER) is None:
        raise UserError(
            "search.storage needs psycopg, which is not installed. Install it with: "
            "pip install 'distlstm[postgresql]'"
        )
    try:
        for _ in range(_TRIES - 1):
            with suppress(IntegrityError, ProgrammingError):  # another command makes the tables
                return _opened(url)
            time.sleep(_SECONDS_BETWEEN_TRIES)
        return _opened(url)
    except (SQLAlchemyError, RuntimeError) as error:
        raise UserError(
            f"The database of search.storage, {database_of(url)}, cannot be opened: "
            f"{reason_of(error) or error}. Check that it is running, that the user may write to "
            "it, and that PGPASSWORD or ~/.pgpass has the password."
        ) from error


def _opened(url: str) -> optuna.storages.RDBStorage:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    settings: dict[str, Any] = {**_CONNECTION, **conninfo_to_dict(url)}
    engine = {"creator": partial(psycopg.connect, **settings), "pool_pre_ping": True}
    return optuna.storages.RDBStorage(f"postgresql+{_DRIVER}://", engine_kwargs=engine)


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Turn an error of the database in the middle of a study into a RunError."""
    try:
        yield
    except Exception as error:
        reason = reason_of(error)
        if not url or reason is None:
            raise
        raise RunError(
            f"The database of search.storage, {database_of(url)}, does not answer: {reason}. "
            "What has ended is kept; run the same command again."
        ) from error


def reason_of(error: Exception) -> str | None:
    """The first line of what the database said; None if it is another error."""
    if isinstance(error, optuna.exceptions.StorageInternalError):
        cause: BaseException | None = error.__cause__
    elif isinstance(error, SQLAlchemyError):
        cause = error
    else:  # Tune keeps only the text of an error
        found = _IN_TRACEBACK.findall(str(error))
        return str(found[-1]) if found else None
    said = str(getattr(cause, "orig", None) or cause or error)
    return said.strip().partition("\n")[0].rstrip(".")
