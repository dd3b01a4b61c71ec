"""The command line: each command parses its options, calls the API, and prints the result.

Slow imports are in the functions of the API, so `--help` and usage errors are instant.
"""

import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import click

import distlstm
from distlstm import __version__, environment
from distlstm.cli_jobs import jobs, submit
from distlstm.cli_runs import runs
from distlstm.cli_serve import serve
from distlstm.config import ExperimentConfig
from distlstm.errors import OutputError, RunError, UserError
from distlstm.options import (
    Cluster,
    Duration,
    Invocation,
    Location,
    OnDisk,
    cluster_options,
    config_options,
    debug_option,
    display_options,
    json_option,
    label_options,
    model_option,
    output_options,
    overwrite_option,
    quiet_option,
    reader_options,
)
from distlstm.reader_options import ReaderOptions

_TEXTS_AT_ONCE = 256

_data_argument = click.argument("data", nargs=-1, required=True, metavar="DATA...")
_validation_option = click.option(
    "--validation",
    multiple=True,
    metavar="DATA",
    help="Validation data [default: a part of DATA]. May be repeated.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="distlstm")
def cli() -> None:
    """Train, tune and apply LSTM text classifiers on Ray.

    DATA is one or more files, directories, globs or URIs: Parquet, CSV or JSON lines. To resume a
    command that was stopped, run it again.
    """


@cli.command()
@_data_argument
@output_options("model")
@click.option(
    "--init",
    type=Location(),
    metavar="MODEL",
    help="Model directory to continue from, or a language model of `pretrain` to begin with. New "
    "tokens and labels of DATA are added to its own.",
)
@click.option(
    "--unlabelled",
    multiple=True,
    metavar="INPUT",
    help="Rows without labels, of which a language model is learnt first. May be repeated.",
)
@_validation_option
@label_options
@reader_options
@config_options
@cluster_options
@display_options
def train(
    data: tuple[str, ...],
    output: str,
    overwrite: bool,
    init: str | None,
    unlabelled: tuple[str, ...],
    validation: tuple[str, ...],
    text_column: str | None,
    label_column: str | None,
    config: ExperimentConfig,
    reader: ReaderOptions,
    cluster: Cluster,
    quiet: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Train a classifier on labelled DATA."""
    from distlstm.console import results
    from distlstm.console.terminal import TerminalProgress

    with TerminalProgress(quiet=quiet, debug=debug) as progress:
        result = distlstm.train(
            data,
            output=output,
            validation=validation,
            text_column=text_column or "text",
            label_column=label_column or "label",
            init=init,
            unlabelled=unlabelled,
            config=config,
            overwrite=overwrite,
            debug=debug,
            on_event=progress,
            reader=reader,
            **cluster,
        )
    results.print_json(result.to_json()) if as_json else results.print_train(result)


@cli.command()
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@output_options("language model")
@click.option("--text-column", default="text", show_default=True, help="Column with the text.")
@click.option(
    "--time-budget", type=Duration(), help="End after this time of training, such as 90s, 30m, 2h."
)
@reader_options
@config_options
@cluster_options
@display_options
def pretrain(
    inputs: tuple[str, ...],
    output: str,
    overwrite: bool,
    text_column: str,
    time_budget: float | None,
    config: ExperimentConfig,
    reader: ReaderOptions,
    cluster: Cluster,
    quiet: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Train a language model on the texts of INPUT, for `train --init` and `tune --init`."""
    from distlstm.console import results
    from distlstm.console.terminal import TerminalProgress

    with TerminalProgress(quiet=quiet, debug=debug) as progress:
        result = distlstm.pretrain(
            inputs,
            output=output,
            text_column=text_column,
            time_budget=time_budget,
            config=config,
            overwrite=overwrite,
            debug=debug,
            on_event=progress,
            reader=reader,
            **cluster,
        )
    results.print_json(result.to_json()) if as_json else results.print_pretrain(result)


@cli.command()
@_data_argument
@output_options("study")
@click.option(
    "--init", type=Location(), metavar="LM", help="Language model with which all trials begin."
)
@_validation_option
@label_options
@reader_options
@click.option("--trials", type=click.IntRange(1), help="Short for --set search.num_trials=N.")
@click.option(
    "--prefer", type=click.Choice(["best", "fast"]), help="Short for --set search.prefer=..."
)
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 100),
    metavar="POINTS",
    help="Short for --set search.tolerance=POINTS.",
)
@click.option(
    "--warm-start",
    type=Location(),
    metavar="STUDY",
    help="Study directory; its best settings are tried first.",
)
@click.option(
    "--time-budget", type=Duration(), help="Stop all trials after this time, such as 90s, 30m, 2h."
)
@click.option(
    "--concurrency", type=click.IntRange(1), help="Trials at once [default: as many as fit]."
)
@config_options
@cluster_options
@display_options
def tune(
    data: tuple[str, ...],
    output: str,
    overwrite: bool,
    init: str | None,
    validation: tuple[str, ...],
    text_column: str | None,
    label_column: str | None,
    trials: int | None,
    prefer: Literal["best", "fast"] | None,
    tolerance: float | None,
    warm_start: str | None,
    time_budget: float | None,
    concurrency: int | None,
    config: ExperimentConfig,
    reader: ReaderOptions,
    cluster: Cluster,
    quiet: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Search for the best classifier on labelled DATA, several trials at once."""
    from distlstm.console import results
    from distlstm.console.terminal import TerminalProgress

    with TerminalProgress(quiet=quiet) as progress:
        result = distlstm.tune(
            data,
            output=output,
            validation=validation,
            text_column=text_column or "text",
            label_column=label_column or "label",
            trials=trials,
            prefer=prefer,
            tolerance=tolerance,
            init=init,
            warm_start=warm_start,
            time_budget=time_budget,
            concurrency=concurrency,
            config=config,
            overwrite=overwrite,
            debug=debug,
            on_event=progress,
            reader=reader,
            **cluster,
        )
    if as_json:
        results.print_json(result.to_json())
    else:
        results.print_tune(result, metric=config.search.metric)


@cli.command()
@_data_argument
@model_option
@click.option(
    "--output",
    type=Location(),
    help="Directory for metrics.json, report.html and errors.parquet.",
)
@overwrite_option
@label_options
@reader_options
@cluster_options
@display_options
def evaluate(
    data: tuple[str, ...],
    model: str,
    output: str | None,
    overwrite: bool,
    text_column: str | None,
    label_column: str | None,
    reader: ReaderOptions,
    cluster: Cluster,
    quiet: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Measure a model on labelled DATA that it has not seen."""
    from distlstm.console import results
    from distlstm.console.terminal import TerminalProgress

    with TerminalProgress(quiet=quiet) as progress:
        result = distlstm.evaluate(
            data,
            model=model,
            output=output,
            text_column=text_column,
            label_column=label_column,
            overwrite=overwrite,
            debug=debug,
            on_event=progress,
            reader=reader,
            **cluster,
        )
    results.print_json(result.to_json()) if as_json else results.print_evaluation(result)


@cli.command("batch-predict")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@model_option
@output_options("predictions")
@click.option("--text-column", help="Column with the text [default: that of the training data].")
@reader_options
@click.option("--columns", help="Input columns to keep, separated by commas [default: all].")
@click.option("--top-k", type=click.IntRange(1), help="Also write the K most probable labels.")
@click.option(
    "--min-score",
    type=click.FloatRange(0, 1),
    help="Make predicted_label null if its score is lower.",
)
@click.option(
    "--format",
    "output_format",
    type=click.Choice(["parquet", "delta"]),
    default="parquet",
    show_default=True,
    help="delta: also commit the parts to a Delta table in the output.",
)
@click.option("--dry-run", is_flag=True, help="Only estimate the time and memory of the run.")
@cluster_options
@display_options
def batch_predict(
    inputs: tuple[str, ...],
    model: str,
    output: str,
    overwrite: bool,
    text_column: str | None,
    columns: str | None,
    top_k: int | None,
    min_score: float | None,
    output_format: Literal["parquet", "delta"],
    dry_run: bool,
    reader: ReaderOptions,
    cluster: Cluster,
    quiet: bool,
    as_json: bool,
    debug: bool,
) -> None:
    """Predict a label for every row of INPUT, and write them to Parquet."""
    from distlstm.console import results
    from distlstm.console.terminal import TerminalProgress

    kept = (
        None if columns is None else [name.strip() for name in columns.split(",") if name.strip()]
    )
    with TerminalProgress(quiet=quiet) as progress:
        if dry_run:
            estimate = distlstm.estimate(
                inputs,
                model=model,
                output=output,
                text_column=text_column,
                columns=kept,
                top_k=top_k,
                min_score=min_score,
                debug=debug,
                on_event=progress,
                reader=reader,
                format=output_format,
                **cluster,
            )
        else:
            result = distlstm.batch_predict(
                inputs,
                model=model,
                output=output,
                text_column=text_column,
                columns=kept,
                top_k=top_k,
                min_score=min_score,
                overwrite=overwrite,
                debug=debug,
                on_event=progress,
                reader=reader,
                format=output_format,
                **cluster,
            )
    if as_json:
        results.print_json((estimate if dry_run else result).to_json())
    elif dry_run:
        results.print_estimate(estimate)
    else:
        results.print_batch_predict(result)


@cli.command()
@click.argument("directory", type=Location(), metavar="DIR")
@json_option
@debug_option
def verify(directory: str, as_json: bool, debug: bool) -> None:  # noqa: ARG001 (main)
    """Check a batch-predict output against its manifest and input, by Parquet footers."""
    from distlstm.console import results

    result = distlstm.verify(directory)
    results.print_json(result.to_json()) if as_json else results.print_verification(result)
    if result.faults:
        raise RunError(
            f"{len(result.faults)} faults in {directory}. Run batch-predict again: it rewrites "
            "missing and damaged parts and keeps the others."
        )


@cli.command()
@click.argument("path", type=Location(), metavar="PATH")
@json_option
@debug_option
def report(path: str, as_json: bool, debug: bool) -> None:  # noqa: ARG001 (main)
    """Write the HTML report of an output again, or of a directory that has outputs below it."""
    from distlstm.console import results

    written = str(distlstm.write_report(path))
    results.print_json({"report": written}) if as_json else results.print_text(written)


@cli.command()
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@model_option
@debug_option
def predict(texts: tuple[str, ...], model: str, debug: bool) -> None:  # noqa: ARG001 (main)
    """Predict labels of TEXTs, or of lines on standard input, as JSON lines."""
    from distlstm.console import results

    loaded = distlstm.load_model(model)
    pending = iter(map(_as_utf8, texts)) if texts else _lines()
    while chunk := list(islice(pending, _TEXTS_AT_ONCE)):
        for text, row in zip(chunk, loaded.predict(chunk), strict=True):
            results.print_json({"text": text, **_rounded(row)})


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(v, 6) if isinstance(v, float) else v for name, v in row.items()}


def _lines() -> Iterator[str]:
    encoding = "utf-8-sig"  # a byte order mark may come before the first line
    for line in sys.stdin.buffer:
        yield line.decode(encoding, errors="replace").rstrip("\r\n")
        encoding = "utf-8"


def _as_utf8(argument: str) -> str:
    """An argument whose bytes are not UTF-8 as the same bytes on standard input."""
    return argument.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


@cli.command()
@click.argument("directory", default="demo", type=OnDisk(), metavar="[DIR]")
@quiet_option
@debug_option
def demo(directory: Path, quiet: bool, debug: bool) -> None:
    """Build a corpus offline in DIR, then tune, train, evaluate and predict on it."""
    from distlstm.demo.run import run_demo

    def run(arguments: Iterable[str]) -> None:
        cli.main([*arguments, *(["--quiet"] if quiet else [])], standalone_mode=False)

    run_demo(directory, run=run, quiet=quiet, debug=debug)


for command in (submit, jobs, runs, serve):
    cli.add_command(command)


def main() -> None:
    """Run the command line, and exit with one of the codes in docs/reference.md."""
    invocation = Invocation()
    try:
        cli.main(standalone_mode=False, obj=invocation)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        from distlstm.console.results import print_interrupted

        once = (predict.name, serve.name)
        resumes = invocation.command not in once and not environment.is_submitted_job()
        print_interrupted(["distlstm", *sys.argv[1:]] if resumes else None)
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except OutputError as error:
        from distlstm.console import results

        results.print_error(str(error))
        results.close_stdout()
        sys.exit(1)
    except Exception as error:
        from distlstm.console import results

        if invocation.debug:
            results.print_traceback()
        known = isinstance(error, UserError | RunError)
        results.print_error(str(error) if known else _unexpected(error))
        sys.exit(2 if isinstance(error, UserError) else 1)


def _unexpected(error: Exception) -> str:
    return f"{type(error).__name__}: {error} (this should not happen; --debug shows the traceback)"
