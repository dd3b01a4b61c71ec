"""Command-line options that several commands share, and their value types."""

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict, TypeVar, cast, get_args

import click

from distlstm.config import ExperimentConfig, load_config
from distlstm.errors import UserError
from distlstm.reader_options import InputFormat, ReaderOptions
from distlstm.storage import storage_at
from distlstm.storage.location import on_disk
from distlstm.worker_range import WorkerRange

_Command = TypeVar("_Command", bound=Callable[..., Any])
_NAMED_CHARACTER = re.compile(r"\\(?:t|x([0-9a-fA-F]{2}))")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


class Location(click.ParamType[str]):
    """A path, or a URI that is supported; other URIs are usage errors."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check that a directory or file can be there."""
        try:
            storage_at(str(value))
        except UserError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class OnDisk(click.ParamType[Path]):
    """A path, or a `file:///` URI; other URIs are usage errors."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Convert to a path."""
        try:
            return on_disk(value)
        except UserError as error:
            self.fail(str(error), param, ctx)


def several(*options: Callable[[_Command], _Command]) -> Callable[[_Command], _Command]:
    """Combine options into one decorator; `--help` shows them in this order."""

    def decorate(command: _Command) -> _Command:
        return functools.reduce(lambda wrapped, option: option(wrapped), reversed(options), command)

    return decorate


def gathered(
    name: str, make: Callable[..., Any], **options: Callable[[_Command], _Command]
) -> Callable[[_Command], _Command]:
    """Options of which a command gets one argument: `name`, made of their values."""

    def decorate(command: _Command) -> _Command:
        @functools.wraps(command)
        def call(*arguments: Any, **values: Any) -> Any:
            group = {option: values.pop(option) for option in options}
            return command(*arguments, **values, **{name: make(**group)})

        return several(*options.values())(cast(_Command, call))

    return decorate


@dataclass
class Invocation:
    """The command that ran. `main` needs it for errors, when the click context is gone."""

    command: str | None = None
    debug: bool = False


def _remember(context: click.Context, parameter: click.Parameter, debug: bool) -> bool:
    """Record the command. As the callback of an eager option, this runs before any error."""
    del parameter
    invocation = context.ensure_object(Invocation)
    invocation.command, invocation.debug = context.command.name, debug
    return debug


def output_options(kind: str) -> Callable[[_Command], _Command]:
    """`--output` and `--overwrite`."""
    return several(
        click.option(
            "--output",
            type=Location(),
            required=True,
            help=f"Directory for the {kind}. On a cluster, all nodes share it, or it is a URI.",
        ),
        overwrite_option,
    )


overwrite_option = click.option(
    "--overwrite", is_flag=True, help="Replace the output if it exists."
)
model_option = click.option("--model", type=Location(), required=True, help="Model directory.")
quiet_option = click.option("--quiet", is_flag=True, help="Show no progress.")
json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print the result as one JSON object."
)
debug_option = click.option(
    "--debug",
    is_flag=True,
    callback=_remember,
    is_eager=True,
    help="Show Ray's own output, tracebacks and timings.",
)
display_options = several(quiet_option, json_option, debug_option)
label_options = several(
    click.option("--text-column", help="Column with the text [default: text]."),
    click.option("--label-column", help="Column with the label [default: label]."),
)


class Mark(click.ParamType[str]):
    r"""A delimiter, quote or escape; `\t` and `\x01` stand for the characters they name."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Convert to the characters that are meant."""
        del param, ctx
        return _NAMED_CHARACTER.sub(
            lambda found: chr(int(found[1], 16)) if found[1] else "\t", str(value)
        )


def _names(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[str, ...]:
    """The names in a list with commas; none if it is not given."""
    del context, parameter
    return () if value is None else tuple(name.strip() for name in value.split(","))


reader_options = gathered(
    "reader",
    ReaderOptions,
    format=click.option(
        "--input-format",
        "format",
        type=click.Choice(get_args(InputFormat)),
        help="Format of all files [default: by their suffix or content].",
    ),
    delimiter=click.option(
        "--delimiter",
        type=Mark(),
        help="Between the values of a CSV or TSV row [default: by the first row].",
    ),
    quote=click.option(
        "--quote", type=Mark(), help="Around CSV and TSV values; '' for none [default: \"]."
    ),
    escape=click.option(
        "--escape",
        type=Mark(),
        help="Before special characters in CSV and TSV, such as '\\'; '' for none.",
    ),
    header=click.option(
        "--header",
        callback=_names,
        metavar="NAMES",
        help="Column names, separated by commas, of CSV and TSV files without a header row.",
    ),
    encoding=click.option(
        "--encoding",
        help="Encoding of text files, such as gb18030 [default: by byte order mark, else utf-8].",
    ),
    null_values=click.option(
        "--null-value",
        "null_values",
        multiple=True,
        metavar="TEXT",
        help="Unquoted CSV or TSV value that is null [default: the empty one]. May be repeated.",
    ),
    snapshot=click.option(
        "--snapshot", help="Snapshot of a Delta or Iceberg table [default: the current one]."
    ),
)


class Workers(click.ParamType[WorkerRange]):
    """A number of workers, or a range such as 2:8."""

    name = "N or MIN:MAX"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> WorkerRange:
        """Convert to a range; a usage error if the value is none."""
        try:
            return value if isinstance(value, WorkerRange) else WorkerRange.parse(str(value))
        except UserError as error:
            self.fail(str(error), param, ctx)


class Cluster(TypedDict):
    """What a command runs on; arguments of the functions of the API."""

    workers: WorkerRange | None
    gpu: bool | None
    cpus_per_worker: int
    address: str | None


cluster_options = gathered(
    "cluster",
    Cluster,
    workers=click.option(
        "--workers", type=Workers(), help="Number of worker processes, or the least and the most."
    ),
    gpu=click.option("--gpu/--no-gpu", default=None, help="Use GPUs [default: if there are any]."),
    cpus_per_worker=click.option(
        "--cpus-per-worker",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        help="CPUs and threads of each worker.",
    ),
    address=click.option(
        "--address",
        help="Address of a Ray cluster [default: RAY_ADDRESS, else Ray is started here].",
    ),
)


def experiment_of(
    *, config: str | None, settings: tuple[str, ...], seed: int | None
) -> ExperimentConfig:
    """The experiment that `--config`, `--set` and `--seed` make.

    Raises:
        UserError: names the wrong key or value.
    """
    own = () if seed is None else (f"seed={seed}",)
    return load_config(config, (*settings, *own))


config_options = gathered(
    "config",
    experiment_of,
    config=click.option("--config", type=Location(), help="TOML file with the hyperparameters."),
    settings=click.option(
        "--set",
        "settings",
        multiple=True,
        metavar="SECTION.FIELD=VALUE",
        help="Change one value of the config. May be repeated.",
    ),
    seed=click.option("--seed", type=int, help="Short for --set seed=N."),
)


class Duration(click.ParamType[float]):
    """Seconds, written as 90, 90s, 30m or 2h."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Convert to seconds; a usage error if the value is not a duration."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", str(value).strip())
        if match is None or float(match[1]) == 0:
            self.fail(f"{value!r} is not a duration such as 90s, 30m or 2h.", param, ctx)
        return float(match[1]) * _SECONDS[match[2]]
