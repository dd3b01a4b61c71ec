"""The command line is a contract: this is the whole of it."""

import click
import pytest
from click.testing import CliRunner

from distlstm.cli import cli

DISPLAY = ["--quiet", "--json", "--debug"]
WORKERS = ["--workers", "--gpu", "--no-gpu", "--cpus-per-worker", "--address"]
CONFIG = ["--config", "--set", "--seed"]
LABELS = ["--text-column", "--label-column"]
READER = [
    "--input-format", "--delimiter", "--quote", "--escape", "--header", "--encoding",
    "--null-value", "--snapshot",
]  # fmt: skip
COMMANDS = {
    "train": [
        "DATA", "--output", "--overwrite", "--init", "--unlabelled", "--validation", *LABELS,
        *READER, *CONFIG, *WORKERS, *DISPLAY,
    ],
    "pretrain": [
        "INPUTS", "--output", "--overwrite", "--text-column", "--time-budget", *READER, *CONFIG,
        *WORKERS, *DISPLAY,
    ],
    "tune": [
        "DATA", "--output", "--overwrite", "--init", "--validation", *LABELS, *READER, "--trials",
        "--time-budget", "--concurrency", "--prefer", "--tolerance", "--warm-start", *CONFIG,
        *WORKERS, *DISPLAY,
    ],
    "evaluate": [
        "DATA", "--model", "--output", "--overwrite", *LABELS, *READER, *WORKERS, *DISPLAY,
    ],
    "batch-predict": [
        "INPUTS", "--model", "--output", "--overwrite", "--text-column", "--columns", "--top-k",
        "--min-score", "--format", "--dry-run", *READER, *WORKERS, *DISPLAY,
    ],
    "serve": [
        "--model", "--host", "--port", "--replicas", "--gpu", "--no-gpu", "--cpus-per-worker",
        "--address", *DISPLAY,
    ],
    "verify": ["DIRECTORY", "--json", "--debug"],
    "report": ["PATH", "--json", "--debug"],
    "runs": ["PATH", "--json", "--debug"],
    "predict": ["TEXTS", "--model", "--debug"],
    "demo": ["DIRECTORY", "--quiet", "--debug"],
    "submit": [
        "COMMAND", "--address", "--name", "--follow", "--no-follow", "--dry-run", "--json",
        "--debug",
    ],
    "jobs list": ["--address", "--last", "--json", "--debug"],
    "jobs status": ["JOB", "--address", "--json", "--debug"],
    "jobs logs": ["JOB", "--address", "-f", "--follow", "--debug"],
    "jobs stop": ["JOB", "--address", "--json", "--debug"],
}  # fmt: skip


def names(command: click.Command) -> list[str]:
    found = []
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            found += [*parameter.opts, *parameter.secondary_opts]
        else:
            found.append((parameter.name or "").upper())
    return found


def commands(group: click.Group, before: str = "") -> dict[str, click.Command]:
    """All commands by name, also those of a group, such as `jobs list`."""
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found |= commands(command, f"{name} ")
        else:
            found[before + name] = command
    return found


def test_the_commands_are_these() -> None:
    assert set(commands(cli)) == set(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_options_of_a_command_are_these(command: str) -> None:
    assert sorted(names(commands(cli)[command])) == sorted(COMMANDS[command])


@pytest.mark.parametrize("command", COMMANDS)
def test_help_explains_every_option(command: str) -> None:
    text = CliRunner().invoke(cli, [*command.split(), "--help"]).output
    for parameter in commands(cli)[command].params:
        if isinstance(parameter, click.Option):
            assert parameter.opts[0] in text
            assert parameter.help


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90.0), ("90s", 90.0), ("30m", 1800.0), ("1.5h", 5400.0)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    from distlstm.options import Duration

    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "5x", "-3m", "0", "m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    from distlstm.options import Duration

    with pytest.raises(click.BadParameter):
        Duration().convert(text, None, None)
