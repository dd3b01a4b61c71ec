"""`distlstm pretrain`: encodes texts, and trains a language model of them with Ray Train."""

import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distlstm.config import ExperimentConfig
from distlstm.data.text_corpus import TextCorpusSpec
from distlstm.model.metadata import METADATA_FILE, read_metadata
from distlstm.stages.pretraining.run import PretrainingRun
from distlstm.stages.pretraining.texts import TextRequest, prepare_texts
from distlstm.stages.run.events import Note, OnEvent
from distlstm.stages.run.files import CHECKPOINTS, HISTORY_FILE
from distlstm.stages.run.output import Identity, State, Work, flat, opened
from distlstm.stages.run.results import PretrainResult
from distlstm.stages.run.session import Resources, ray_session
from distlstm.stages.training.history import read_history
from distlstm.stages.training.labelled_data import check_outside
from distlstm.stages.training.model_output import model_output
from distlstm.storage import Directory, WorkingCopy

_DEFAULT_WORKERS = 2
_UNUSED = ("search", "training", "validation_fraction")
"""Settings on which a language model does not depend."""


@dataclass(frozen=True, kw_only=True)
class PretrainRequest:
    """What texts to learn, and where to write the language model."""

    texts: TextRequest
    output: Directory
    config: ExperimentConfig
    resources: Resources
    time_budget: float | None = None
    """Seconds of training; it ends earlier if all epochs are done."""
    overwrite: bool = False


def pretrain(request: PretrainRequest, *, on_event: OnEvent) -> PretrainResult:
    """Train a language model into the output, or resume where the same command stopped.

    The time budget is not part of the command's identity: it may change before it is used.

    Raises:
        UserError: the data is bad, or another command began the output or is at work on it.
        RunError: training diverged, or workers died too often.
    """
    started = time.perf_counter()
    spec = request.texts.find(request.config, on_event=on_event)
    check_outside(spec.files, request.output)
    location = request.output.location
    with closing(WorkingCopy(request.output, last=[METADATA_FILE])) as copy:
        output = model_output(copy, _identity(spec, request.config))
        with opened(output, overwrite=request.overwrite, on_event=on_event) as work:
            if work.state is State.FINISHED:
                note = f"{location} is already trained by this very command; nothing to do."
                on_event(Note(note))
            else:
                if work.state is State.RESUMED:
                    on_event(Note(f"Resuming {location}."))
                _train(request, spec, copy, work, output.identity, on_event)
            copy.delete(CHECKPOINTS)  # a killed command may have left it, too
            seconds, resumed = time.perf_counter() - started, work.state is not State.NEW
            return _result(location, copy.path, seconds=seconds, resumed=resumed)


def _train(
    request: PretrainRequest,
    spec: TextCorpusSpec,
    copy: WorkingCopy,
    work: Work,
    identity: Identity,
    on_event: OnEvent,
) -> None:
    """Train into a locked output."""
    resources, unfinished = request.resources, copy.storage.below(CHECKPOINTS)
    with ray_session(resources, on_event) as capacity:
        workers = capacity.workers(resources.workers, default=_DEFAULT_WORKERS)
        run = PretrainingRun(
            corpus=prepare_texts(spec, unfinished, on_event),
            config=request.config,
            time_budget=request.time_budget,
            checkpoints=unfinished,
            check=work.check,
            identity=identity,
        )
        run.train(copy.path, capacity, workers, on_event)
        work.publish()


def _identity(spec: TextCorpusSpec, config: ExperimentConfig) -> Identity:
    tables = {name: value for name, value in asdict(config).items() if name not in _UNUSED}
    return flat({**tables, **spec.identity})


def _result(location: str, path: Path, *, seconds: float, resumed: bool) -> PretrainResult:
    metadata: Mapping[str, Any] = read_metadata(path)
    history = read_history(path / HISTORY_FILE)
    training_seconds = sum(row["seconds"] for row in history)
    num_tokens = sum(row["num_tokens"] for row in history)
    return PretrainResult(
        language_model=location,
        perplexity=metadata["metrics"]["perplexity"],
        rows=metadata["corpus"]["num_training"],
        tokens=metadata["corpus"]["num_tokens"],
        epochs=len(history),
        steps=sum(row["steps"] for row in history),
        seconds=seconds,
        tokens_per_second=num_tokens / max(training_seconds, 1e-9),
        resumed=resumed,
    )
