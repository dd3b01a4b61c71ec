"""`evaluate`: how good a model is on labelled rows that it has not seen."""

from typing import TYPE_CHECKING

from distlstm.api.arguments import (
    AnyPath,
    Data,
    Listener,
    Workers,
    called,
    directory_at,
    resources_of,
    sources_of,
)
from distlstm.reader_options import DETECT, ReaderOptions

if TYPE_CHECKING:
    from distlstm.stages.run.results import EvaluationResult


def evaluate(
    data: Data,
    *,
    model: AnyPath,
    output: AnyPath | None = None,
    text_column: str | None = None,
    label_column: str | None = None,
    reader: ReaderOptions = DETECT,
    workers: Workers = None,
    gpu: bool | None = None,
    cpus_per_worker: int = 1,
    address: str | None = None,
    overwrite: bool = False,
    debug: bool = False,
    on_event: Listener = None,
) -> "EvaluationResult":
    """Judge a model on labelled data.

    >>> result = distlstm.evaluate("test.parquet", model="model", output="evaluation")
    >>> result.num_rows
    60
    >>> result.accuracy > 0.8
    True

    Args:
        data: a file, directory, glob or URI, or several: Parquet, CSV or JSON lines.
        model: a MODEL directory.
        output: directory for metrics.json, report.html and errors.parquet [default: none].
        text_column: column with the text [default: the one trained on].
        label_column: column with the label [default: the one trained on].
        reader: how to read the files, where they do not say it.
        workers: worker processes [default: as many as fit].
        gpu: use GPUs [default: if the cluster has any].
        cpus_per_worker: CPUs, and threads, of each worker.
        address: Ray cluster to use [default: RAY_ADDRESS, else one started here].
        overwrite: replace an output that another call made.
        debug: let Ray's own output through.
        on_event: called with every event.

    Raises:
        UserError: a wrong argument or row of data, a damaged model, or an output of something else.
        RunError: work that started and could not be finished.
    """
    with called(address, output=output, on_event=on_event) as listener:
        from distlstm.report.kinds import EVALUATION, write_report_of
        from distlstm.stages import evaluate as work

        request = work.EvaluateRequest(
            data=sources_of(data),
            model=directory_at(model),
            resources=resources_of(
                workers=workers,
                gpu=gpu,
                cpus_per_worker=cpus_per_worker,
                address=address,
                debug=debug,
            ),
            text_column=text_column,
            label_column=label_column,
            reader=reader,
            output=None if output is None else directory_at(output),
            overwrite=overwrite,
        )
        result = work.evaluate(request, on_event=listener)
        if request.output is not None:
            write_report_of(EVALUATION, request.output)
        return result
