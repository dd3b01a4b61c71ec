"""Warm start: the best settings of an earlier study, which are tried first."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.errors import UserError
from distlstm.stages.run.files import STUDY_FILE, TRIALS_FILE
from distlstm.stages.tuning.search_space import Parameters, SearchSpace

_MAX_SETTINGS = 5


def settings_worth_trying(study: Path, space: SearchSpace) -> list[Parameters]:
    """The settings of the best quarter of another study's trials (at most five), best first.

    Parameters that are not in `space`, or have a value outside it, are left out.

    Raises:
        UserError: the directory is not a STUDY, or no trial in it gave a model.
    """
    try:
        json.loads((study / STUDY_FILE).read_text(encoding="utf-8"))
        trials: list[dict[str, Any]] = pq.read_table(study / TRIALS_FILE).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"--warm-start {study} is not a study: its {STUDY_FILE} or {TRIALS_FILE} is missing or "
            "unreadable. Give the --output of a distlstm tune that has ended."
        ) from error
    worked = [trial for trial in trials if trial.get("loss") is not None]
    if not worked:
        raise UserError(
            f"No trial of --warm-start {study} gave a model, so it has no settings to try."
        )
    points = [
        space.inside(trial) for trial in worked[: min(_MAX_SETTINGS, max(1, len(worked) // 4))]
    ]
    return [point for point in points if point]
