"""Chooses the report of a directory by the files in it."""

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from distlstm.errors import UserError
from distlstm.model.metadata import METADATA_FILE
from distlstm.report.evaluation import write_evaluation_report
from distlstm.report.model import write_model_report
from distlstm.report.page import REPORT_FILE
from distlstm.report.prediction import PREDICTION_REPORT_FILE, write_prediction_report
from distlstm.report.study import write_study_report
from distlstm.stages.run.files import MANIFEST_FILE, METRICS_FILE, STUDY_FILE

_KINDS: dict[str, tuple[Callable[[Path], None], str]] = {
    MANIFEST_FILE: (write_prediction_report, PREDICTION_REPORT_FILE),
    STUDY_FILE: (write_study_report, REPORT_FILE),
    METADATA_FILE: (write_model_report, REPORT_FILE),
    METRICS_FILE: (write_evaluation_report, REPORT_FILE),
}
_DAMAGES = (KeyError, TypeError, ValueError, AttributeError, OSError, pa.ArrowException)


def write_report(path: Path) -> Path:
    """Write the report of a model, study, evaluation or prediction directory; return its path.

    Raises:
        UserError: the directory is none of these, or is damaged.
    """
    for file, (write, name) in _KINDS.items():
        if (path / file).exists():
            try:
                write(path)
            except _DAMAGES as error:
                reason = str(error) if isinstance(error, OSError) else repr(error)
                raise UserError(
                    f"{path} is damaged, so its report cannot be written: {reason}."
                ) from error
            return path / name
    raise UserError(
        f"{path} is not a model, study, evaluation or prediction directory: it has none of "
        f"{', '.join(_KINDS)}."
    )
