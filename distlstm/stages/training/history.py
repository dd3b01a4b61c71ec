"""`history.parquet`: the results of each epoch of a training."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from distlstm.atomic import replace_file
from distlstm.stages.run.tables import read_table

if TYPE_CHECKING:  # which imports torch
    from distlstm.model.pretraining import LanguageEpoch
    from distlstm.model.training import EpochResult


def write_history(path: Path, history: "Sequence[EpochResult]") -> None:
    """Write one row per epoch, with validation metrics as `validation_` columns."""
    rows = []
    for result in history:
        row = asdict(result)
        figures = row.pop("validation")
        rows.append({**row, **{f"validation_{name}": value for name, value in figures.items()}})
    with replace_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)


def write_language_history(path: Path, history: "Sequence[LanguageEpoch]") -> None:
    """Write one row per epoch of a language model."""
    rows = [{**asdict(result), "perplexity": result.perplexity} for result in history]
    with replace_file(path) as temporary:
        pq.write_table(pa.Table.from_pylist(rows), temporary)


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read the rows that one of the functions above wrote."""
    return list(read_table(path).to_pylist())
