"""Running commands in the tests' own process, as `main` would."""

import sys
from typing import NamedTuple

import pytest

from distlstm import cli

TINY = [
    *("--set", "model.hidden_dim=12", "--set", "model.embedding_dim=12"),
    *("--set", "training.max_epochs=4", "--set", "training.rows_per_batch=32"),
]


class Outcome(NamedTuple):
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> Outcome:
    """Run `distlstm ARGUMENTS`; its exit code, stdout and stderr."""
    capfd.readouterr()
    before, sys.argv = sys.argv, ["distlstm", *map(str, arguments)]
    code = 0
    try:
        cli.main()
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    finally:
        sys.argv = before
    return Outcome(code, *capfd.readouterr())
