"""`tune`: a search for the best classifier."""

from contextlib import suppress
from typing import TYPE_CHECKING, Literal

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
from distlstm.errors import RunError, UserError
from distlstm.reader_options import DETECT, ReaderOptions

if TYPE_CHECKING:
    from distlstm.stages.run.results import TuneResult


def tune(
    data: Data,
    *,
    output: AnyPath,
    validation: Data = (),
    text_column: str = "text",
    label_column: str = "label",
    trials: int | None = None,
    prefer: Literal["best", "fast"] | None = None,
    tolerance: float | None = None,
    init: AnyPath | None = None,
    warm_start: AnyPath | None = None,
    time_budget: float | None = None,
    concurrency: int | None = None,
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
) -> "TuneResult":
    """Search for the best classifier on labelled data into a STUDY directory.

    The same call again carries on where it stopped; with more trials it adds them.

    >>> result = distlstm.tune(
    ...     "train.parquet",
    ...     output="study",
    ...     trials=2,
    ...     config={
    ...         "search.space": {"model.hidden_dim": {"choice": [8, 16]}},
    ...         "training.max_epochs": 2,
    ...     },
    ... )
    >>> len(result.trials)
    2
    >>> sorted(result.best["parameters"])
    ['model.hidden_dim']

    Args:
        data: a file, directory, glob or URI, or several: Parquet, CSV or JSON lines.
        output: the STUDY directory; `best/` in it becomes the best MODEL, `best.toml` its config.
        validation: held-out data; without it, a tenth of the rows is held out by hash of the text.
        text_column: column with the text.
        label_column: column with the label.
        trials: short for the config's `search.num_trials`.
        prefer: short for the config's `search.prefer`.
        tolerance: short for the config's `search.tolerance`, in points.
        init: a language model of `pretrain`, with which all trials begin; it fixes the sizes of
            embedding and layers.
        warm_start: another STUDY, whose best settings are tried first.
        time_budget: seconds after which no trial goes on.
        concurrency: trials at once [default: all that fit].
        config: an `ExperimentConfig`, a TOML file, or values by dotted name.
        seed: short for the config's `seed`.
        reader: how to read the files, where they do not say it.
        workers: worker processes to use.
        gpu: use GPUs [default: if the cluster has any].
        cpus_per_worker: CPUs, and threads, of each worker.
        address: Ray cluster to use [default: RAY_ADDRESS, else one started here].
        overwrite: replace an output that another call made.
        debug: let Ray's own output through.
        on_event: called with every event.

    Raises:
        UserError: a wrong argument, config or row of data, or an output of something else.
        RunError: no trial gave a model, or most failed in the same way.
    """
    short = {
        "search.num_trials": trials,
        "search.prefer": prefer,
        "search.tolerance": tolerance,
    }
    experiment = config_of(config, seed=seed, changes=short)
    with called(address, output=output, on_event=on_event) as listener:
        from distlstm.report.kinds import MODEL, STUDY, write_report_of
        from distlstm.stages import tune as work
        from distlstm.stages.run.files import BEST, TRIALS_FILE

        for name, value in (("time_budget", time_budget), ("concurrency", concurrency)):
            if value is not None and value <= 0:
                raise UserError(f"{name} is {value}; it must be above 0.")
        directory = directory_at(output)
        request = work.TuneRequest(
            data=labelled_data(
                data,
                validation=validation,
                text_column=text_column,
                label_column=label_column,
                init=init,
                reader=reader,
            ),
            output=directory,
            config=experiment,
            resources=resources_of(
                workers=workers,
                gpu=gpu,
                cpus_per_worker=cpus_per_worker,
                address=address,
                debug=debug,
            ),
            limits=work.Limits(time_budget=time_budget, concurrency=concurrency),
            warm_start=None if warm_start is None else directory_at(warm_start),
            overwrite=overwrite,
        )
        try:
            result = work.tune(request, on_event=listener)
        except (KeyboardInterrupt, RunError):
            with suppress(OSError):  # what ended the study is what counts
                if directory.exists(TRIALS_FILE):
                    write_report_of(STUDY, directory)
            raise
        write_report_of(MODEL, directory.below(BEST))
        write_report_of(STUDY, directory)
        return result
