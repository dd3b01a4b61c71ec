"""Warm start: the best settings of an earlier study, which are tried first."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from distlstm.errors import UserError
from distlstm.json_text import read_json
from distlstm.stages.run.files import STUDY_FILE, TRIALS_FILE
from distlstm.stages.run.tables import read_table
from distlstm.stages.tuning.search_space import Parameters, SearchSpace

_MAX_SETTINGS = 5


def settings_worth_trying(study: Path, space: SearchSpace) -> list[Parameters]:
    """The settings of the best quarter of another study's trials (at most five), best first.

    Parameters that are not in `space`, or have a value outside it, are left out.

    Raises:
        UserError: the directory is not a STUDY, or no trial in it gave a model.
    """
    try:
        read_json(study / STUDY_FILE)
        trials: list[dict[str, Any]] = read_table(study / TRIALS_FILE).to_pylist()
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
