"""The command line: parse, call one stage, hand its result to the console.

Each command imports its stage itself, after the environment that Ray reads at its import is
prepared; so `--help` and usage errors are instant.
"""

import sys
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from distlstm import __version__, environment
from distlstm.config import ExperimentConfig, load_config
from distlstm.errors import RunError, UserError
from distlstm.options import (
    Duration,
    config_options,
    debug_option,
    display_options,
    label_options,
    model_option,
    output_options,
    overwrite_option,
    worker_options,
)

if TYPE_CHECKING:
    from distlstm.data.labelled import Columns
    from distlstm.stages.batch_predict import PredictRequest
    from distlstm.stages.run.session import Resources
    from distlstm.stages.training.labelled_data import DataRequest

_data_argument = click.argument("data", nargs=-1, required=True, metavar="DATA...")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="distlstm")
def cli() -> None:
    """Train, tune and apply LSTM text classifiers on Ray.

    DATA is a file, directory, glob or URI, or several: Parquet, CSV or JSON lines. Run the same
    command again and it carries on where it stopped.
    """


@cli.command()
@_data_argument
@output_options("model")
@click.option(
    "--init",
    type=click.Path(path_type=Path),
    metavar="MODEL",
    help="Model directory to go on from; its vocabulary and labels grow by those of DATA.",
)
@click.option("--validation", multiple=True, metavar="DATA", help="Held-out data; may be repeated.")
@label_options
@config_options
@worker_options
@display_options
def train(data: tuple[str, ...], output: Path, **options: Any) -> None:
    """Train a classifier on labelled DATA."""
    config = _config(options)
    environment.prepare(options["address"], idle_workers=False)
    from distlstm import console
    from distlstm.model.metadata import load_metadata
    from distlstm.report.model import write_model_report
    from distlstm.stages import train as stage
    from distlstm.stages.run.start_up import process_began

    with console.Display(quiet=options["quiet"], debug=options["debug"]) as display:
        result = stage.train(
            _data_request(data, options),
            output=output,
            config=config,
            resources=_resources(options),
            overwrite=options["overwrite"],
            on_event=display,
            began=process_began(),
        )
    write_model_report(output)
    if options["as_json"]:
        console.print_json(asdict(result))
    else:
        console.print_train(result, load_metadata(output))


@cli.command()
@_data_argument
@output_options("study")
@click.option("--validation", multiple=True, metavar="DATA", help="Held-out data; may be repeated.")
@label_options
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
    type=click.Path(path_type=Path),
    metavar="STUDY",
    help="Another study, whose best settings are tried first.",
)
@click.option("--time-budget", type=Duration(), help="Stop after so long: 90s, 30m, 2h.")
@click.option(
    "--concurrency", type=click.IntRange(1), help="Trials at once [default: all that fit]."
)
@config_options
@worker_options
@display_options
def tune(data: tuple[str, ...], output: Path, **options: Any) -> None:
    """Search for the best classifier on labelled DATA, several trials at once."""
    short = {"trials": "num_trials", "prefer": "prefer", "tolerance": "tolerance"}
    options["settings"] += tuple(
        f"search.{name}={options[option]}"
        for option, name in short.items()
        if options[option] is not None
    )
    config = _config(options)
    environment.prepare(options["address"])
    from distlstm import console
    from distlstm.report.model import write_model_report
    from distlstm.report.study import write_study_report
    from distlstm.stages import tune as stage
    from distlstm.stages.run.files import BEST, TRIALS_FILE

    limits = stage.Limits(time_budget=options["time_budget"], concurrency=options["concurrency"])
    try:
        with console.Display(quiet=options["quiet"]) as display:
            result = stage.tune(
                _data_request(data, options),
                output=output,
                config=config,
                resources=_resources(options),
                limits=limits,
                overwrite=options["overwrite"],
                on_event=display,
                warm_start=options["warm_start"],
            )
    except (KeyboardInterrupt, RunError):
        if (output / TRIALS_FILE).exists():
            write_study_report(output)
        raise
    write_model_report(output / BEST)
    write_study_report(output)
    if options["as_json"]:
        console.print_json(asdict(result))
    else:
        console.print_tune(result, metric=config.search.metric)


@cli.command()
@_data_argument
@model_option
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    help="Directory for metrics.json, report.html and errors.parquet.",
)
@overwrite_option
@label_options
@worker_options
@display_options
def evaluate(data: tuple[str, ...], model: Path, output: Path | None, **options: Any) -> None:
    """Judge a model on labelled DATA it has not seen."""
    environment.prepare(options["address"])
    from distlstm import console
    from distlstm.report.evaluation import write_evaluation_report
    from distlstm.stages import evaluate as stage

    with console.Display(quiet=options["quiet"]) as display:
        report = stage.evaluate(
            data,
            model=model,
            columns=_columns(options, _run_of(model)),
            output=output,
            resources=_resources(options),
            overwrite=options["overwrite"],
            on_event=display,
        )
    if output is not None:
        write_evaluation_report(output)
    console.print_json(report) if options["as_json"] else console.print_evaluation(report)


@cli.command("batch-predict")
@click.argument("inputs", nargs=-1, required=True, metavar="INPUT...")
@model_option
@output_options("predictions")
@click.option("--text-column", help="Column with the text [default: the one trained on].")
@click.option("--columns", help="Input columns to keep, with commas between [default: all].")
@click.option("--top-k", type=click.IntRange(1), help="Also write the K most probable labels.")
@click.option(
    "--min-score", type=click.FloatRange(0, 1), help="Leave predicted_label null below this score."
)
@click.option("--dry-run", is_flag=True, help="Say what there is to do and what it will take.")
@worker_options
@display_options
def batch_predict(inputs: tuple[str, ...], model: Path, output: Path, **options: Any) -> None:
    """Write a label for every row of INPUT to Parquet."""
    environment.prepare(options["address"])
    from distlstm import console
    from distlstm.stages import batch_predict as stage

    columns = options["columns"]
    request = stage.PredictRequest(
        inputs=inputs,
        model=model,
        text_column=_columns(options, _run_of(model)).text,
        columns=None
        if columns is None
        else tuple(filter(None, map(str.strip, columns.split(",")))),
        top_k=options["top_k"],
        min_score=options["min_score"],
    )
    if options["dry_run"]:
        _estimate(request, output, options)
        return
    with console.Display(quiet=options["quiet"]) as display:
        result = stage.batch_predict(
            request,
            output=output,
            resources=_resources(options),
            overwrite=options["overwrite"],
            on_event=display,
        )
    console.print_json(asdict(result)) if options["as_json"] else console.print_batch_predict(
        result
    )


def _estimate(request: "PredictRequest", output: Path, options: dict[str, Any]) -> None:
    from distlstm import console
    from distlstm.stages.estimate import estimate

    with console.Display(quiet=options["quiet"]) as display:
        result = estimate(request, output=output, resources=_resources(options), on_event=display)
    console.print_json(asdict(result)) if options["as_json"] else console.print_estimate(result)


@cli.command()
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@debug_option
def verify(directory: Path, as_json: bool, debug: bool) -> None:  # noqa: ARG001 (main)
    """Re-count a batch-predict output against its manifest and its input, from footers alone."""
    environment.prepare()
    from distlstm import console
    from distlstm.stages import verify as stage

    result = stage.verify(directory)
    console.print_json(asdict(result)) if as_json else console.print_verification(result)
    if result.faults:
        raise RunError(
            f"{len(result.faults)} faults in {directory}. Run batch-predict again: it mends what "
            "is missing or damaged and keeps the rest."
        )


@cli.command()
@click.argument("path", type=click.Path(path_type=Path), metavar="PATH")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@debug_option
def report(path: Path, as_json: bool, debug: bool) -> None:  # noqa: ARG001 (main)
    """(Re)write the HTML report of a model, a study, an evaluation or a prediction output."""
    environment.prepare()
    from distlstm import console
    from distlstm.report.kinds import write_report

    written = str(write_report(path))
    console.print_json({"report": written}) if as_json else console.print_text(written)


@cli.command()
@click.argument("texts", nargs=-1, metavar="[TEXT]...")
@model_option
@debug_option
def predict(texts: tuple[str, ...], model: Path, debug: bool) -> None:  # noqa: ARG001 (main)
    """Label one or more TEXTs, or lines from standard input; prints JSON lines."""
    environment.prepare()
    from distlstm import console
    from distlstm.stages.predict import predict_texts

    for row in predict_texts(texts or _lines(), model=model):
        console.print_json(row)


@cli.command()
@click.argument("directory", default="demo", type=click.Path(path_type=Path), metavar="[DIR]")
@click.option("--quiet", is_flag=True, help="Show no progress.")
@debug_option
def demo(directory: Path, **options: Any) -> None:
    """Build a real corpus offline, then tune, train, evaluate and predict on it, in DIR."""
    environment.prepare()
    from distlstm.demo.run import run_demo

    run_demo(directory, resources=_resources(options), quiet=options["quiet"])


def main() -> None:
    """Run the command line; the exit code says how it ended (see docs/reference.md)."""
    debug = "--debug" in sys.argv
    try:
        cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (KeyboardInterrupt, click.Abort):
        from distlstm.console import print_interrupted

        print_interrupted(["distlstm", *sys.argv[1:]])
        sys.exit(130)
    except BrokenPipeError:
        sys.exit(1)
    except Exception as error:
        from distlstm import console

        if debug:
            console.print_traceback()
        known = isinstance(error, UserError | RunError)
        console.print_error(str(error) if known else _unexpected(error))
        sys.exit(2 if isinstance(error, UserError) else 1)


def _unexpected(error: Exception) -> str:
    return f"{type(error).__name__}: {error} (this should not happen; --debug shows where)"


def _config(options: dict[str, Any]) -> ExperimentConfig:
    seed = () if options["seed"] is None else (f"seed={options['seed']}",)
    return load_config(options["config"], (*options["settings"], *seed))


def _resources(options: dict[str, Any]) -> "Resources":
    from distlstm.stages.run.session import Resources

    return Resources(
        num_workers=options.get("workers"),
        use_gpu=options.get("gpu"),
        cpus_per_worker=options.get("cpus_per_worker", 1),
        address=options.get("address"),
        show_ray_output=options["debug"],
    )


def _data_request(data: tuple[str, ...], options: dict[str, Any]) -> "DataRequest":
    from distlstm.stages.training.labelled_data import DataRequest

    return DataRequest(
        training=data,
        validation=options["validation"],
        columns=_columns(options, {}),
        init=options.get("init"),
    )


def _columns(options: dict[str, Any], trained_on: dict[str, Any]) -> "Columns":
    """The columns named, else those a model was trained on, else `text` and `label`."""
    from distlstm.data.labelled import Columns

    return Columns(
        text=options.get("text_column") or trained_on.get("columns.text", "text"),
        label=options.get("label_column") or trained_on.get("columns.label", "label"),
    )


def _run_of(model: Path) -> dict[str, Any]:
    """The identity of the command that trained a model."""
    from distlstm.model.metadata import load_metadata

    return dict(load_metadata(model).get("run", {}))


def _lines() -> Iterable[str]:
    with suppress(KeyboardInterrupt):
        for line in sys.stdin.buffer:
            yield line.decode("utf-8", errors="replace").rstrip("\r\n")
