"""What an earlier study says to try first."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.errors import UserError
from distlstm.stages.run.files import STUDY_FILE, TRIALS_FILE
from distlstm.stages.tuning.search_space import Parameters, SearchSpace

_MOST = 5


def settings_worth_trying(study: Path, space: SearchSpace) -> list[Parameters]:
    """The best settings of another study, best first: a quarter of its trials, five at the most.

    Of each, the parameters that `space` has too, where their value lies in it.

    Raises:
        UserError: the directory is no STUDY, or one without a trial that gave a model.
    """
    try:
        json.loads((study / STUDY_FILE).read_text(encoding="utf-8"))
        trials: list[dict[str, Any]] = pq.read_table(study / TRIALS_FILE).to_pylist()
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(
            f"{study} is no study to start from: it has no {STUDY_FILE} and {TRIALS_FILE} that can "
            "be read. Name the --output of a distlstm tune that has ended."
        ) from error
    worked = [trial for trial in trials if trial.get("loss") is not None]
    if not worked:
        raise UserError(f"No trial of {study} gave a model, so there is nothing to start from.")
    points = [space.inside(trial) for trial in worked[: min(_MOST, max(1, len(worked) // 4))]]
    return [point for point in points if point]
