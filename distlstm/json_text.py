"""JSON as all programs read it: what has no value, such as a loss that is not a number, is null."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distlstm.atomic import write_text
from distlstm.regular_file import LARGEST, read_regular


def to_json(value: Any, *, indent: int | None = None) -> str:
    """JSON text, in which each NaN or infinity, for which JSON has no number, is null."""
    try:
        return _dumps(value, indent)
    except ValueError:
        return _dumps(_finite(value), indent)


def write_json(path: Path, value: Any) -> None:
    """Write such a text to a file, atomically, with a line for each value."""
    write_text(path, to_json(value, indent=1) + "\n")


def read_json(path: Path, *, largest: int = LARGEST) -> Any:
    """Read a JSON file; NaN and infinity, which earlier versions wrote, are read as null.

    Raises:
        OSError: see `open_regular`.
        ValueError: it is not JSON in UTF-8, or is nested too deeply.
    """
    return parse_json(read_regular(path, largest=largest))


def parse_json(content: bytes) -> Any:
    """Parse the content of a JSON file, as `read_json` does.

    Raises:
        ValueError: it is not JSON in UTF-8, or is nested too deeply.
    """
    try:
        return json.loads(content.decode("utf-8"), parse_constant=lambda _name: None)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _dumps(value: Any, indent: int | None) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False, indent=indent)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
