"""`train`: one classifier from labelled data."""

import time
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
    labelled_data,
    resources_of,
)
from distlstm.reader_options import DETECT, ReaderOptions

if TYPE_CHECKING:
    from distlstm.stages.run.results import TrainResult


def train(
    data: Data,
    *,
    output: AnyPath,
    validation: Data = (),
    text_column: str = "text",
    label_column: str = "label",
    init: AnyPath | None = None,
    unlabelled: Data = (),
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
) -> "TrainResult":
    """Train a classifier on labelled data into a MODEL directory.

    The same call again carries on where it stopped, or has nothing to do.

    >>> result = distlstm.train(
    ...     "train.parquet",
    ...     output="model",
    ...     config={"model.hidden_dim": 16, "training.max_epochs": 4},
    ... )
    >>> result.metrics["accuracy"] > 0.8
    True

    Args:
        data: a file, directory, glob or URI, or several: Parquet, CSV or JSON lines.
        output: the MODEL directory.
        validation: held-out data; without it, a tenth of the rows is held out by hash of the text.
        text_column: column with the text.
        label_column: column with the label.
        init: a MODEL directory to go on from, whose vocabulary and labels grow by those of the
            data; or a language model of `pretrain` to begin with.
        unlabelled: rows without labels; a language model of them and of the data is learnt first.
        config: an `ExperimentConfig`, a TOML file, or values by dotted name.
        seed: short for the config's `seed`.
        reader: how to read the files, where they do not say it.
        workers: worker processes [default: 2, or as many as fit].
        gpu: use GPUs [default: if the cluster has any].
        cpus_per_worker: CPUs, and threads, of each worker.
        address: Ray cluster to use [default: RAY_ADDRESS, else one started here].
        overwrite: replace an output that another call made.
        debug: let Ray's own output through, and report where the time to the first step went.
        on_event: called with every event.

    Raises:
        UserError: a wrong argument, config or row of data, or an output of something else.
        RunError: work that started and could not be finished.
    """
    began, experiment = time.monotonic(), config_of(config, seed=seed)
    with called(address, output=output, idle_workers=False, on_event=on_event) as listener:
        from distlstm.report.kinds import MODEL, write_report_of
        from distlstm.stages import train as work

        request = work.TrainRequest(
            data=labelled_data(
                data,
                validation=validation,
                text_column=text_column,
                label_column=label_column,
                init=init,
                unlabelled=unlabelled,
                reader=reader,
            ),
            output=directory_at(output),
            config=experiment,
            resources=resources_of(
                workers=workers,
                gpu=gpu,
                cpus_per_worker=cpus_per_worker,
                address=address,
                debug=debug,
            ),
            overwrite=overwrite,
        )
        result = work.train(request, on_event=listener, began=began)
        write_report_of(MODEL, request.output)
        return result
