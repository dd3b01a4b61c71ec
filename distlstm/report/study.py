"""report.html of a STUDY directory: the trials, best first, and the configuration that won."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from distlstm.report.page import REPORT_FILE, Page, PageTable, Section, write_page
from distlstm.stages.study_files import BEST_CONFIG, STUDY_FILE, TRIALS_FILE


def write_study_report(path: Path) -> None:
    """(Re)write the report of a finished study, from its `trials.parquet`."""
    study = json.loads((path / STUDY_FILE).read_text(encoding="utf-8"))
    trials = pq.read_table(path / TRIALS_FILE).to_pylist()
    metrics = study["result"]["best"]["metrics"]
    states = [trial["state"] for trial in trials]
    page = Page(
        title=f"Study {path.absolute().name}",
        subtitle=f"{len(trials)} trials: {states.count('done')} ran to their end, "
        f"{states.count('stopped')} were stopped early, {states.count('failed')} failed",
        figures=[(name, f"{value:.4f}") for name, value in metrics.items()],
        sections=[
            Section(title="Trials, best first", table=_table(trials)),
            Section(
                title="The winning configuration",
                code=(path / BEST_CONFIG).read_text(encoding="utf-8"),
            ),
        ],
    )
    write_page(page, path / REPORT_FILE)


def _table(trials: list[dict[str, Any]]) -> PageTable:
    header = list(trials[0])
    return PageTable(
        header=header,
        rows=[[_cell(trial[name]) for name in header] for trial in trials],
        numeric=len(header),
    )


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
