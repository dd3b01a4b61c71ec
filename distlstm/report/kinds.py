"""The kinds of directories that have a report, and their writers."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from distlstm.errors import UserError
from distlstm.model.metadata import METADATA_FILE
from distlstm.report.evaluation import write_evaluation_report
from distlstm.report.model import write_model_report
from distlstm.report.prediction import write_prediction_report
from distlstm.report.runs import write_runs_report
from distlstm.report.study import write_study_report
from distlstm.stages.run.files import (
    BEST_CONFIG,
    EPOCHS_FILE,
    ERRORS_FILE,
    HISTORY_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    PREDICTION_REPORT_FILE,
    REPORT_FILE,
    STUDY_FILE,
    SUCCESS_FILE,
    TRIALS_FILE,
)
from distlstm.stages.run.output import reading, writing
from distlstm.storage import Directory, WorkingCopy

_DAMAGES = (KeyError, TypeError, ValueError, AttributeError, OSError, pa.ArrowException)


@dataclass(frozen=True)
class Kind:
    """A kind of directory."""

    mark: str
    """The file by which it is recognised."""
    others: tuple[str, ...]
    """The other files that its report is made of, if they exist."""
    write: Callable[[Path], None]
    """Writes the report from these files, beside them."""
    report: str = REPORT_FILE


PREDICTION = Kind(MANIFEST_FILE, (SUCCESS_FILE,), write_prediction_report, PREDICTION_REPORT_FILE)
STUDY = Kind(STUDY_FILE, (TRIALS_FILE, EPOCHS_FILE, BEST_CONFIG), write_study_report)
MODEL = Kind(METADATA_FILE, (HISTORY_FILE,), write_model_report)
EVALUATION = Kind(METRICS_FILE, (ERRORS_FILE,), write_evaluation_report)
_KINDS = (PREDICTION, STUDY, MODEL, EVALUATION)


def write_report(storage: Directory) -> str:
    """Write the report of a model, study, evaluation or prediction directory.

    Of a directory that has such ones below it, it is an index of them. Returns its path or URI.

    Raises:
        UserError: the directory is none of these, or is damaged.
    """
    with reading(storage):
        kind = next((kind for kind in _KINDS if storage.exists(kind.mark)), None)
    return write_runs_report(storage) if kind is None else write_report_of(kind, storage)


def write_report_of(kind: Kind, storage: Directory) -> str:
    """Write the report of a directory of this kind; its path or URI.

    Raises:
        UserError: the directory is damaged.
    """
    with closing(WorkingCopy(storage, last=())) as copy:
        with reading(storage):
            copy.fetch((kind.mark, *kind.others))
        try:
            kind.write(copy.path)
        except _DAMAGES as error:
            reason = str(error) if isinstance(error, OSError) else repr(error)
            raise UserError(
                f"{storage.location} is damaged, so its report cannot be written: {reason}."
            ) from error
        with writing(storage):
            copy.publish()
    return storage.at(kind.report)
