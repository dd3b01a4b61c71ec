"""A command that is to run as a job: checked here, and with absolute paths."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import click

from distlstm.config import ExperimentConfig
from distlstm.errors import UserError
from distlstm.options import Invocation, Location, OnDisk, experiment_of
from distlstm.reader_options import ReaderOptions
from distlstm.storage import local_path

COMMANDS = ("train", "pretrain", "tune", "evaluate", "batch-predict", "verify")
"""The commands that can be submitted."""
CONFIG_FILE = "config.toml"
START_FILE = "start.sh"
_DATA = ("data", "inputs", "validation", "unlabelled")
_EXPERIMENT = ("config", "settings", "seed")
_HIDDEN = "***"


@dataclass(frozen=True, kw_only=True)
class JobPlan:
    """A command, and what a job of it is made of."""

    command: str
    """Its name, such as `train`."""
    words: tuple[str, ...]
    """The command as the job runs it."""
    shown: str
    """The command as it is shown, without the values of `--set`, which may be secret."""
    output: str | None
    """Path or URI of its output."""
    experiment: ExperimentConfig | None
    """The config that is sent: that of `--config`, `--set` and `--seed`; None if none is given."""

    @property
    def entrypoint(self) -> str:
        """The line that a shell on the cluster runs."""
        return f"exec sh {START_FILE} {shlex.join(self.words)}"


def planned(words: Sequence[str], commands: Mapping[str, click.Command]) -> JobPlan:
    """Check a command as it would be checked where it runs.

    Args:
        words: the command, such as `["train", "data.parquet", "--output", "model"]`.
        commands: the commands of the command line, by name.

    Raises:
        UserError: it is no command that can be submitted, or its config is wrong.
        click.UsageError: an argument is wrong.
    """
    name, arguments = _command_of(words)
    command = commands[name]
    title = f"distlstm {name}"
    with command.make_context(title, list(arguments), obj=Invocation()) as context:
        given, _, _ = command.make_parser(context).parse_args(list(arguments))
        experiment = _checked(context.params, given)
    sent = [] if experiment is None else ["--config", CONFIG_FILE]
    job = _words(command, given, value_of=_absolute, left_out=_EXPERIMENT)
    return JobPlan(
        command=name,
        words=(name, *job, *sent),
        shown=shlex.join(["distlstm", name, *_words(command, given, value_of=_shown)]),
        output=None if given.get("output") is None else str(local_or_uri(given["output"])),
        experiment=experiment,
    )


def _command_of(words: Sequence[str]) -> tuple[str, Sequence[str]]:
    if not words or words[0] not in COMMANDS:
        given = f"`{words[0]}` cannot be submitted" if words else "No command is given"
        raise UserError(f"{given}. Submit one of: {', '.join(COMMANDS)}.")
    return words[0], words[1:]


def _checked(params: Mapping[str, Any], given: Mapping[str, Any]) -> ExperimentConfig | None:
    """Check what click does not; returns the config, if the command gives one."""
    if given.get("address") is not None:
        raise UserError(
            "A job runs on the cluster that it is submitted to. Give --address before the command: "
            "distlstm submit --address URL -- ..."
        )
    if "delimiter" in params:
        ReaderOptions(**{field.name: params[field.name] for field in fields(ReaderOptions)})
    if "settings" not in params:
        return None
    experiment = experiment_of(**{name: params[name] for name in _EXPERIMENT})
    if not any(name in given for name in _EXPERIMENT):
        return None
    vectors = experiment.text.vectors
    return experiment.with_values({"text.vectors": local_or_uri(vectors)} if vectors else {})


def _words(
    command: click.Command,
    given: Mapping[str, Any],
    *,
    value_of: Callable[[click.Parameter, str], str],
    left_out: Sequence[str] = (),
) -> list[str]:
    """The arguments that were given, then the options, with changed values."""
    arguments: list[str] = []
    options: list[str] = []
    for parameter in command.params:
        value = given.get(parameter.name or "")
        if value is None or parameter.name in left_out:
            continue
        several = list(value) if isinstance(value, list | tuple) else [value]
        if isinstance(parameter, click.Option) and parameter.is_flag:
            options += [(parameter.opts if value else parameter.secondary_opts)[0]]
        elif isinstance(parameter, click.Option):
            options += [
                word for v in several for word in (parameter.opts[0], value_of(parameter, v))
            ]
        else:
            arguments += [value_of(parameter, v) for v in several]
    return [*arguments, *options]


def _absolute(parameter: click.Parameter, value: str) -> str:
    """The value of a parameter in a job, whose directory is another one."""
    is_path = parameter.name in _DATA or isinstance(parameter.type, Location | OnDisk)
    return local_or_uri(value) if is_path else value


def _shown(parameter: click.Parameter, value: str) -> str:
    if parameter.name == "settings":
        return f"{value.partition('=')[0]}={_HIDDEN}"
    return _absolute(parameter, value)


def local_or_uri(location: str) -> str:
    """The absolute path of a local location; any other URI as it is."""
    path = local_path(location)
    return location if path is None else str(path)
