"""`pretrain`: a language model from rows without labels."""

from typing import TYPE_CHECKING

from distlstm.api.arguments import (
    AnyPath,
    Config,
    Data,
    Listener,
    Workers,
    called,
    config_of,
    directory_at,
    resources_of,
    sources_of,
)
from distlstm.errors import UserError
from distlstm.reader_options import DETECT, ReaderOptions

if TYPE_CHECKING:
    from distlstm.stages.run.results import PretrainResult


def pretrain(
    data: Data,
    *,
    output: AnyPath,
    text_column: str = "text",
    time_budget: float | None = None,
    config: Config = None,
    seed: int | None = None,
    reader: ReaderOptions = DETECT,
    workers: Workers = None,
    gpu: bool | None = None,
    cpus_per_worker: int = 1,
    address: str | None = None,
    overwrite: bool = False,
    debug: bool = False,
    on_event: Listener = None,
) -> "PretrainResult":
    """Train a language model on rows of text, from which classifiers begin (`train(init=...)`).

    The same call again carries on where it stopped, or has nothing to do.

    >>> result = distlstm.pretrain(
    ...     "train.parquet",
    ...     output="language-model",
    ...     config={"model.hidden_dim": 16, "pretraining.max_epochs": 2},
    ... )
    >>> result.perplexity > 1
    True

    Args:
        data: a file, directory, glob or URI, or several: Parquet, CSV or JSON lines.
        output: the directory of the language model.
        text_column: column with the text; all others are ignored.
        time_budget: seconds after which the training ends, if not all epochs are done.
        config: an `ExperimentConfig`, a TOML file, or values by dotted name.
        seed: short for the config's `seed`.
        reader: how to read the files, where they do not say it.
        workers: worker processes [default: 2, or as many as fit].
        gpu: use GPUs [default: if the cluster has any].
        cpus_per_worker: CPUs, and threads, of each worker.
        address: Ray cluster to use [default: RAY_ADDRESS, else one started here].
        overwrite: replace an output that another call made.
        debug: let Ray's own output through.
        on_event: called with every event.

    Raises:
        UserError: a wrong argument, config or row of data, or an output of something else.
        RunError: work that started and could not be finished.
    """
    experiment, sources = config_of(config, seed=seed), sources_of(data)
    if not sources:
        raise UserError("No data are given. Name a file, a directory, a glob or a URI.")
    if time_budget is not None and time_budget <= 0:
        raise UserError(f"time_budget is {time_budget}; it must be above 0.")
    with called(address, output=output, idle_workers=False, on_event=on_event) as listener:
        from distlstm.report.kinds import MODEL, write_report_of
        from distlstm.stages import pretrain as work
        from distlstm.stages.pretraining.texts import TextRequest

        request = work.PretrainRequest(
            texts=TextRequest(unlabelled=sources, column=text_column, reader=reader),
            output=directory_at(output),
            config=experiment,
            resources=resources_of(
                workers=workers,
                gpu=gpu,
                cpus_per_worker=cpus_per_worker,
                address=address,
                debug=debug,
            ),
            time_budget=time_budget,
            overwrite=overwrite,
        )
        result = work.pretrain(request, on_event=listener)
        write_report_of(MODEL, request.output)
        return result
