"""`batch_predict`, `estimate` and `verify`: a label for every row, its cost, and its proof."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from distlstm.api.arguments import (
    AnyPath,
    Data,
    Listener,
    Workers,
    called,
    check_cut,
    directory_at,
    resources_of,
    sources_of,
)
from distlstm.errors import UserError
from distlstm.reader_options import DETECT, ReaderOptions

if TYPE_CHECKING:
    from distlstm.stages.batch_predict import OutputFormat, PredictRequest
    from distlstm.stages.run.results import BatchPredictResult, Estimate, Verification


def batch_predict(
    inputs: Data,
    *,
    model: AnyPath,
    output: AnyPath,
    text_column: str | None = None,
    columns: Sequence[str] | None = None,
    top_k: int | None = None,
    min_score: float | None = None,
    reader: ReaderOptions = DETECT,
    format: "OutputFormat" = "parquet",  # noqa: A002
    workers: Workers = None,
    gpu: bool | None = None,
    cpus_per_worker: int = 1,
    address: str | None = None,
    overwrite: bool = False,
    debug: bool = False,
    on_event: Listener = None,
) -> "BatchPredictResult":
    """Write a label for every row of the inputs to Parquet, each row exactly once.

    The same call again does only what is missing, and what is new in the inputs.

    >>> result = distlstm.batch_predict("posts", model="model", output="predictions", top_k=2)
    >>> (result.rows_in, result.rows_out, result.rows_without_prediction)
    (120, 120, 0)

    Args:
        inputs: a file, directory, glob or URI, or several: Parquet, CSV or JSON lines, or a
            Delta or Iceberg table.
        model: a MODEL directory.
        output: the directory for the parts, which mirror the inputs.
        text_column: column with the text [default: the one trained on].
        columns: input columns to keep [default: all].
        top_k: also write the K most probable labels.
        min_score: leave predicted_label null below this score.
        reader: how to read the files, where they do not say it.
        format: "delta" also commits the parts to a Delta table in the output.
        workers: worker processes [default: as many as fit].
        gpu: use GPUs [default: if the cluster has any].
        cpus_per_worker: CPUs, and threads, of each worker.
        address: Ray cluster to use [default: RAY_ADDRESS, else one started here].
        overwrite: replace an output that another call made.
        debug: let Ray's own output through.
        on_event: called with every event.

    Raises:
        UserError: a wrong argument or input, a damaged model, or an output of something else.
        RunError: a file could not be read or a part not written; all others are done and kept.
    """
    with called(address, output=output, on_event=on_event) as listener:
        from distlstm.stages import batch_predict as work

        request = _request(
            inputs,
            model=model,
            output=output,
            text_column=text_column,
            columns=columns,
            top_k=top_k,
            min_score=min_score,
            reader=reader,
            format=format,
            workers=workers,
            gpu=gpu,
            cpus_per_worker=cpus_per_worker,
            address=address,
            overwrite=overwrite,
            debug=debug,
        )
        return work.batch_predict(request, on_event=listener)


def estimate(
    inputs: Data,
    *,
    model: AnyPath,
    output: AnyPath,
    text_column: str | None = None,
    columns: Sequence[str] | None = None,
    top_k: int | None = None,
    min_score: float | None = None,
    reader: ReaderOptions = DETECT,
    format: "OutputFormat" = "parquet",  # noqa: A002
    workers: Workers = None,
    gpu: bool | None = None,
    cpus_per_worker: int = 1,
    address: str | None = None,
    debug: bool = False,
    on_event: Listener = None,
) -> "Estimate":
    """Measure a sample of what `batch_predict` would do, and estimate what the whole will take.

    This is `batch-predict --dry-run`: it takes the arguments of `batch_predict`, and writes
    nothing.

    >>> result = distlstm.estimate("posts", model="model", output="predictions")
    >>> (result.files, result.rows, result.rows_are_exact)
    (2, 120, True)

    Raises:
        UserError: whatever would stop `batch_predict` before it starts.
        RunError: the workers died on the sample.
    """
    with called(address, on_event=on_event) as listener:
        from distlstm.stages import estimate as work

        request = _request(
            inputs,
            model=model,
            output=output,
            text_column=text_column,
            columns=columns,
            top_k=top_k,
            min_score=min_score,
            reader=reader,
            format=format,
            workers=workers,
            gpu=gpu,
            cpus_per_worker=cpus_per_worker,
            address=address,
            debug=debug,
        )
        return work.estimate(request, on_event=listener)


def _request(
    inputs: Data,
    *,
    model: AnyPath,
    output: AnyPath,
    text_column: str | None,
    columns: Sequence[str] | None,
    top_k: int | None,
    min_score: float | None,
    reader: ReaderOptions,
    format: "OutputFormat",  # noqa: A002
    workers: Workers,
    gpu: bool | None,
    cpus_per_worker: int,
    address: str | None,
    overwrite: bool = False,
    debug: bool,
) -> "PredictRequest":
    from distlstm.stages.batch_predict import OutputFormat, PredictRequest

    check_cut(top_k=top_k, min_score=min_score)
    if isinstance(columns, str):
        raise UserError(f"columns is a list of names, not {columns!r}.")
    if format not in get_args(OutputFormat):
        raise UserError(f"The format {format!r} is none of: {', '.join(get_args(OutputFormat))}.")
    return PredictRequest(
        inputs=sources_of(inputs),
        model=directory_at(model),
        output=directory_at(output),
        resources=resources_of(
            workers=workers,
            gpu=gpu,
            cpus_per_worker=cpus_per_worker,
            address=address,
            debug=debug,
        ),
        text_column=text_column,
        columns=None if columns is None else tuple(columns),
        top_k=top_k,
        min_score=min_score,
        reader=reader,
        format=format,
        overwrite=overwrite,
    )


def verify(directory: AnyPath) -> "Verification":
    """Re-count a `batch_predict` output against its manifest and its input, from footers alone.

    >>> distlstm.verify("predictions").faults
    []

    Raises:
        UserError: the directory is no output of `batch_predict`, or its manifest is damaged.
    """
    with called():
        from distlstm.stages import verify as work

        return work.verify(directory_at(directory))
