"""Warm start: the best settings of an earlier study, which are tried first."""

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.errors import UserError
from distlstm.json_text import parse_json
from distlstm.stages.run.files import STUDY_FILE, TRIALS_FILE
from distlstm.stages.tuning.search_space import Parameters, SearchSpace
from distlstm.storage import Directory

_MAX_SETTINGS = 5


def settings_worth_trying(study: Directory, space: SearchSpace) -> list[Parameters]:
    """The settings of the best quarter of another study's trials (at most five), best first.

    Parameters that are not in `space`, or have a value outside it, are left out.

    Raises:
        UserError: the directory is not a STUDY, or no trial in it gave a model.
    """
    try:
        parse_json(study.read(STUDY_FILE))
        table = pq.read_table(pa.BufferReader(study.read(TRIALS_FILE)))
        trials: list[dict[str, Any]] = table.to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"--warm-start {study.location} is not a study: its {STUDY_FILE} or {TRIALS_FILE} is "
            "missing or unreadable. Give the --output of a distlstm tune that has ended."
        ) from error
    worked = [trial for trial in trials if trial.get("loss") is not None]
    if not worked:
        raise UserError(
            f"No trial of --warm-start {study.location} gave a model, so it has no settings to try."
        )
    points = [
        space.inside(trial) for trial in worked[: min(_MAX_SETTINGS, max(1, len(worked) // 4))]
    ]
    return [point for point in points if point]
