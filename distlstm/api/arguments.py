"""What the functions of the API take, and what their work gets: plain arguments become requests."""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from distlstm import environment
from distlstm.config import ExperimentConfig, load_config
from distlstm.errors import RunError, UserError
from distlstm.reader_options import ReaderOptions
from distlstm.stages.run.events import Event, OnEvent
from distlstm.stages.run.host import audible, unchanged
from distlstm.stages.run.metrics import measured
from distlstm.storage import Directory, UnreachableError, storage_at
from distlstm.worker_range import WorkerRange

if TYPE_CHECKING:  # which imports Ray
    from distlstm.stages.run.session import Resources
    from distlstm.stages.training.labelled_data import DataRequest

AnyPath = str | os.PathLike[str]
"""A local path, or a URI of a file or directory in an object store: s3://, gs://, az://."""
Data = AnyPath | Sequence[AnyPath]
"""A file, directory, glob or URI, or several of them: Parquet, CSV or JSON lines."""
Config = ExperimentConfig | AnyPath | Mapping[str, Any] | None
"""An experiment; a TOML file; values by dotted name (`{"model.hidden_dim": 64}`); the defaults."""
Workers = int | str | tuple[int, int] | WorkerRange | None
"""A number of worker processes, or the least and the most: `"2:8"` or `(2, 8)`."""
Listener = Callable[[Event], None] | None
"""Called with every event of the work: progress, notes, epochs, trials."""


@contextmanager
def called(
    address: str | None = None,
    *,
    output: AnyPath | None = None,
    idle_workers: bool = True,
    variables: Mapping[str, str] | None = None,
    on_event: Listener = None,
) -> Iterator[OnEvent]:
    """Prepare the process for the work of a function, and put it back at the end.

    Yields the listener, which may print, though the rest of the process is silenced meanwhile. If
    the work has an OUTPUT, its events become metrics of Ray as well. `variables` are further ones
    of an embedded Ray.

    Raises:
        RunError: an object store could not be reached in the middle of the work.
    """
    try:
        prepared = environment.prepared(address, idle_workers=idle_workers, more=variables or {})
        with prepared, unchanged():
            listener = audible(on_event or _ignore)
            yield listener if output is None else measured(listener, output=os.fspath(output))
    except UnreachableError as error:
        raise RunError(f"{error}. Finished work is kept; run the same command again.") from error


def _ignore(event: Event) -> None:
    """Nobody watches."""


def sources_of(data: Data) -> tuple[str, ...]:
    """The paths, globs and URIs that DATA names.

    Raises:
        UserError: it is something else, such as a data frame.
    """
    several = [data] if isinstance(data, str | os.PathLike) else data
    if isinstance(several, Sequence) and all(isinstance(s, str | os.PathLike) for s in several):
        return tuple(os.fspath(source) for source in several)
    raise UserError(
        f"Data is a path, a glob, a URI, or a list of them, not {type(data).__name__}. Write rows "
        "to a Parquet file first."
    )


def directory_at(location: AnyPath) -> Directory:
    """The directory at a path or URI.

    Raises:
        UserError: the URI is not supported.
    """
    return storage_at(os.fspath(location))


def check_cut(*, top_k: int | None, min_score: float | None) -> None:
    """Raise a UserError if there is no such number of labels, or no such score."""
    if top_k is not None and (type(top_k) is not int or top_k < 1):
        raise UserError(f"top_k is {top_k!r}; it must be a whole number, at least 1.")
    if min_score is not None and not 0 <= min_score <= 1:
        raise UserError(f"min_score is {min_score!r}; it must be from 0 to 1.")


def config_of(
    config: Config, *, seed: int | None = None, changes: Mapping[str, Any] | None = None
) -> ExperimentConfig:
    """The experiment that CONFIG names, with some values changed; those that are None stay.

    Raises:
        UserError: names the offending key or value, and the nearest valid name.
    """
    if isinstance(config, ExperimentConfig):
        experiment = config
    elif isinstance(config, Mapping):
        experiment = ExperimentConfig().with_values(config)
    else:
        experiment = load_config(None if config is None else os.fspath(config))
    values = {"seed": seed, **(changes or {})}
    return experiment.with_values({name: v for name, v in values.items() if v is not None})


def resources_of(
    *,
    workers: Workers,
    gpu: bool | None,
    cpus_per_worker: int,
    address: str | None,
    debug: bool = False,
) -> "Resources":
    """What the work may use; to be called within `called`."""
    from distlstm.stages.run.session import Resources

    if type(cpus_per_worker) is not int or cpus_per_worker < 1:
        raise UserError(
            f"cpus_per_worker is {cpus_per_worker!r}; it must be a whole number, at least 1."
        )
    return Resources(
        workers=None if workers is None else WorkerRange.of(workers),
        use_gpu=gpu,
        cpus_per_worker=cpus_per_worker,
        address=address,
        show_ray_output=debug,
    )


def labelled_data(
    data: Data,
    *,
    validation: Data,
    text_column: str,
    label_column: str,
    reader: ReaderOptions,
    init: AnyPath | None = None,
    unlabelled: Data = (),
) -> "DataRequest":
    """The labelled data of `train` and `tune`; to be called within `called`."""
    from distlstm.data.labelled import Columns
    from distlstm.stages.training.labelled_data import DataRequest

    training = sources_of(data)
    if not training:
        raise UserError("No data are given. Name a file, a directory, a glob or a URI.")
    return DataRequest(
        training=training,
        validation=sources_of(validation),
        columns=Columns(text=text_column, label=label_column),
        init=None if init is None else directory_at(init),
        unlabelled=sources_of(unlabelled),
        reader=reader,
    )
