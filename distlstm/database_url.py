"""The address of a study's database, which never has a password in it.

A config is copied into files, logs and reports, and `--set` is seen in the list of processes. So a
password in the address is refused, and the address is not shown: it may be in it in any form.
"""

import re

from distlstm.errors import UserError

_HOST = r"[\w.-]+|\[[0-9A-Fa-f:.]+\]"
_PLACE = rf"(?:{_HOST})(?::\d+)?"
_ADDRESS = re.compile(
    rf"postgres(?:ql)?://(?:[\w.%+-]+@)?(?P<place>(?:{_PLACE}(?:,{_PLACE})*)?/[\w.%+-]+)"
    r"(?:\?(?P<settings>\w+=[^&=#@?]*(?:&\w+=[^&=#@?]*)*))?"
)
_SETTINGS = (
    *("host", "port", "service", "passfile", "options", "application_name", "connect_timeout"),
    *("sslmode", "sslrootcert", "sslcert", "sslkey", "sslnegotiation", "channel_binding"),
    *("target_session_attrs", "gssencmode", "require_auth"),
)
"""Those of libpq that name no secret."""
_NAMING = ("host", "port", "service")
"""Those that say which database it is."""


class DatabaseUrl:
    """The rule of a config field for such an address, or an empty text."""

    def check(self, value: str, where: str) -> str:
        """Return the value.

        Raises:
            UserError: it is no address of a database, or may have a password in it.
        """
        found = _ADDRESS.fullmatch(value)
        settings = (found and found["settings"]) or ""
        names = [setting.partition("=")[0] for setting in settings.split("&") if setting]
        if value and (found is None or not set(names) <= set(_SETTINGS)):
            raise UserError(
                f"{where} must look like postgresql://USER@HOST:PORT/DATABASE, and have no "
                "password, which would be copied into files and logs (so the value is not shown "
                "here). Set the password in PGPASSWORD or ~/.pgpass."
            )
        return value


def database_of(url: str) -> str:
    """An address without its user, and without settings that name no database."""
    found = _ADDRESS.fullmatch(url)
    if found is None:
        return ""
    settings = sorted((found["settings"] or "").split("&"))
    kept = [setting for setting in settings if setting.partition("=")[0] in _NAMING]
    return f"postgresql://{found['place']}" + (f"?{'&'.join(kept)}" if kept else "")
