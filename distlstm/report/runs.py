"""report.html of a directory that has runs below it: an index that compares them.

It has the name that every report has, so that one command and one link lead to all of them.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from distlstm.errors import UserError
from distlstm.report.page import Cell, Link, Marked, Page, PageTable, Section, number, write_page
from distlstm.report.run_charts import (
    MOST_STUDIES,
    common_metric,
    fronts_chart,
    histories_chart,
)
from distlstm.report.study_data import Study, read_study
from distlstm.stages.listing.record import RunRecord
from distlstm.stages.run.files import REPORT_FILE, STUDY_FILE, TRIALS_FILE
from distlstm.stages.run.output import writing
from distlstm.stages.runs import runs
from distlstm.storage import Directory, UnreachableError, WorkingCopy

_METRICS = ("accuracy", "macro_f1", "loss", "perplexity")
_COMPARED = ("model", "study")
_WORDS = {"study": ("study", "studies"), "predictions": ("prediction run", "prediction runs")}
"""One and several of a kind."""


def write_runs_report(directory: Directory) -> str:
    """(Re)write the index of the runs below a directory; its path or URI.

    Raises:
        UserError: there are none.
    """
    records = [run for run in runs(directory) if run.name != "."]
    if not records:
        raise UserError(
            f"{directory.location} is not a model, study, evaluation or prediction directory, and "
            "has none below it."
        )
    page = Page(
        title=f"Runs in {Path(directory.location).name}",
        subtitle=_subtitle(records),
        sections=list(_sections(directory, records)),
    )
    with closing(WorkingCopy(directory, last=())) as copy:
        write_page(page, copy.path / REPORT_FILE)
        with writing(directory):
            copy.publish()
    return directory.at(REPORT_FILE)


def _subtitle(records: Collection[RunRecord]) -> str:
    kinds = Counter(run.kind for run in records)
    counts = [
        f"{count} {_WORDS.get(kind, (kind, f'{kind}s'))[count > 1]}"
        for kind, count in sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    ]
    states = Counter(run.state for run in records)
    open_ = [f"{states[s]} {s}" for s in ("running", "unfinished", "damaged") if states[s]]
    return f"{', '.join(counts)}{'; ' * bool(open_)}{', '.join(open_)}."


def _sections(directory: Directory, records: Sequence[RunRecord]) -> Iterator[Section]:
    yield Section(title="Runs", table=_table(records))
    studies = list(_studies(directory, records))
    if studies:
        yield from _charts(studies, num_left_out=_num_studies(records) - len(studies))
    for kinds, title in (
        (_COMPARED, "models and studies"),
        (("language model",), "language models"),
    ):
        compared = [run for run in records if run.kind in kinds and run.settings]
        if len(compared) > 1:
            yield from _configurations(compared, title)


def _num_studies(records: Iterable[RunRecord]) -> int:
    return sum(run.kind == "study" for run in records)


def _table(records: Sequence[RunRecord]) -> PageTable:
    """A row per run; empty columns are left out."""
    header = ["run", "kind", "state", "when (UTC)", "data", "model", *_METRICS]
    header += ["rows", "rows per second", "trials", "problem"]
    rows = [_row(run) for run in records]
    filled = [i for i in range(len(header)) if any(row[i] for row in rows)]
    return PageTable(
        header=[header[i] for i in filled],
        rows=[[row[i] for i in filled] for row in rows],
        is_sortable=True,
        is_filterable=True,
    )


def _row(run: RunRecord) -> list[Cell]:
    metrics = {"loss": run.metrics.get("log_loss"), **run.metrics}
    return [
        _name(run),
        run.kind,
        run.state,
        f"{run.when:%Y-%m-%d %H:%M}",
        run.data,
        run.model,
        *(number(metrics.get(name), ".4f") for name in _METRICS),
        number(run.rows, ",d"),
        number(run.rows_per_second, ",.0f"),
        number(run.trials, "d"),
        run.problem,
    ]


def _name(run: RunRecord) -> Cell:
    if not run.report:
        return run.name
    address = quote(f"{run.name}/{run.report}".encode("utf-8", "surrogateescape"))
    return Link(run.name, f"./{address}")


def _studies(directory: Directory, records: Iterable[RunRecord]) -> Iterator[Study]:
    """The newest studies that can be read and have a result, by name."""
    named = [run for run in records if run.kind == "study" and run.state != "damaged"]
    num_found = 0
    for run in named:
        if num_found == MOST_STUDIES:
            return
        study = _read(directory.below(run.name))
        if study is not None and study.chosen is not None:
            num_found += 1
            yield replace(study, name=run.name)


def _read(directory: Directory) -> Study | None:
    with closing(WorkingCopy(directory, last=())) as copy:
        try:
            copy.fetch((STUDY_FILE, TRIALS_FILE))
            return read_study(copy.path, with_epochs=False)
        except UnreachableError:
            raise
        except (UserError, KeyError, TypeError, ValueError, AttributeError, OSError):
            return None


def _charts(studies: Sequence[Study], *, num_left_out: int) -> Iterator[Section]:
    metric = common_metric(studies)
    alike = [replace(study, metric=metric) for study in studies]
    left_out = (
        f" The {len(studies)} newest are shown; {num_left_out} more are older or have no result."
        if num_left_out
        else ""
    )
    histories, fronts = histories_chart(alike), fronts_chart(alike)
    if histories is not None:
        text = f"The best {metric} of each study after each of its trials.{left_out}"
        yield Section(title="Histories of the studies", text=text, chart=histories)
    if fronts is not None:
        text = "A mark is a trial. No trial of these studies is both better and faster than one on "
        text += f"the line.{left_out}"
        yield Section(title="Quality and speed", text=text, chart=fronts)


def _configurations(records: Sequence[RunRecord], title: str) -> Iterator[Section]:
    """The settings that differ, a column for each; then those that are the same."""
    names = list(dict.fromkeys(name for run in records for name in run.settings))
    values = {name: [_shown(run.settings, name) for run in records] for name in names}
    differing = [name for name in names if len(set(filter(None, values[name]))) > 1]
    if differing:
        usual = {
            name: Counter(filter(None, values[name])).most_common(1)[0][0] for name in differing
        }
        rows: list[list[Cell]] = [
            [
                _name(run),
                run.kind,
                *(_marked(values[name][i], usual[name]) for name in differing),
            ]
            for i, run in enumerate(records)
        ]
        yield Section(
            title=f"Configurations of {title}: what differs",
            text="A value that is not the most frequent one is bold.",
            table=PageTable(
                header=["run", "kind", *differing], rows=rows, is_sortable=True, is_filterable=True
            ),
        )
    same = [[name, next(filter(None, values[name]), "")] for name in names if name not in differing]
    if same:
        yield Section(
            title=f"Configurations of {title}: the same in all that have it",
            table=PageTable(header=["setting", "value"], rows=same, is_filterable=True),
        )


def _shown(settings: Mapping[str, Any], name: str) -> str:
    """A value as text; empty if the run does not have the setting, or it is an empty text."""
    value = settings.get(name, "")
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _marked(value: str, usual: str) -> Cell:
    return Marked(value) if value and value != usual else value
