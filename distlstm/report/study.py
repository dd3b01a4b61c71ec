"""report.html of a STUDY directory: its trials, their results and the best configuration."""

from collections.abc import Iterator
from pathlib import Path

from distlstm.report.bar_chart import Bar, bar_chart
from distlstm.report.page import Cell, Page, PageTable, Section, number, write_page
from distlstm.report.study_charts import (
    curves_chart,
    history_chart,
    parameters_chart,
    pareto_chart,
    words,
)
from distlstm.report.study_data import Study, Trial, read_study
from distlstm.report.study_timeline import timeline_chart, timeline_of
from distlstm.stages.run.files import METRICS, REPORT_FILE


def write_study_report(path: Path) -> None:
    """(Re)write the report of a study, finished or not, from the files that exist.

    Raises:
        UserError: the directory is not a study.
    """
    study = read_study(path)
    page = Page(
        title=f"Study {study.name}",
        subtitle=_subtitle(study),
        figures=_figures(study),
        sections=list(_sections(study)),
    )
    write_page(page, path / REPORT_FILE)


def _subtitle(study: Study) -> str:
    states = [trial.state for trial in study.trials]
    names = {
        "done": "ran to the end",
        "stopped": "stopped early",
        "failed": "failed",
        "running": "running",
        "unfinished": "not finished",
    }
    counts = [f"{states.count(state)} {what}" for state, what in names.items() if state in states]
    trials = f"{len(states)} trial{'s' * (len(states) != 1)}"
    ended = "" if study.is_finished else ". The study is not finished; these are its results so far"
    return f"{trials}{': ' * bool(counts)}{', '.join(counts)}{ended}."


def _figures(study: Study) -> list[tuple[str, str]]:
    chosen = study.chosen
    if chosen is None:
        return []
    figures = [(name, f"{value:.4f}") for name, value in chosen.metrics.items()]
    if chosen.rows_per_second:
        figures.append(("rows per second", f"{chosen.rows_per_second:,.0f}"))
    if chosen.num_parameters is not None:
        figures.append(("parameters", f"{chosen.num_parameters:,}"))
    if study.seconds:
        figures.append(("seconds, all trials", f"{study.seconds:,.0f}"))
    return figures


def _sections(study: Study) -> Iterator[Section]:
    if study.chosen is None:
        yield Section(title="No result yet", text=_why_nothing(study))
    yield from _charts(study)
    if study.importance:
        yield _importance(study)
    timeline = timeline_of(study.epochs)
    if timeline is not None:
        shares = [timeline.share(worker) for worker in timeline.workers]
        pauses = f" Pauses of {timeline.left_out:,.0f} s are left out." if timeline.cuts else ""
        yield Section(
            title="Workers",
            text="A bar is an epoch, with the number of its trial. Between the first and the last "
            f"epoch, workers were busy {sum(shares) / len(shares):.0%} of the time.{pauses}",
            chart=timeline_chart(timeline),
        )
    if study.trials:
        yield Section(title="Trials, best first", table=_table(study))
    if study.best_config:
        yield Section(title="The best configuration", code=study.best_config)


def _why_nothing(study: Study) -> str:
    errors = [trial.error for trial in study.trials if trial.error]
    return (
        f"No trial has a result. The first error: {errors[0]}"
        if errors
        else "No trial has finished its first epoch."
    )


def _charts(study: Study) -> Iterator[Section]:
    """The charts that have something to draw."""
    charts = {
        "History": (history_chart(study), _history_text(study)),
        "Learning curves": (
            curves_chart(study),
            "A line per trial, coloured by rank. At its end, a dot means that the trial ran to the "
            "end, a stroke that it was stopped early, a cross that it failed.",
        ),
        "Parameters": (
            parameters_chart(study),
            "A line per trial, from its parameters to its result, coloured by rank. It is dashed "
            "and grey if there is no result.",
        ),
        "Quality and speed": (pareto_chart(study), _pareto_text(study)),
    }
    for title, (chart, text) in charts.items():
        if chart is not None:
            yield Section(title=title, text=text, chart=chart)


def _history_text(study: Study) -> str:
    without = sum(study.metric not in trial.metrics for trial in study.trials)
    text = "A mark per trial, coloured by rank as in the charts below. The line is the best so far."
    return text + f" Trials without a result: {without}." * bool(without)


def _pareto_text(study: Study) -> str:
    text = "No trial is both better and faster than one on the line. The ring is the model in best/"
    if study.prefer != "fast":
        return f"{text}: the best."
    within = f" within {study.tolerance:g} points" if study.tolerance is not None else " near"
    return f"{text}: the fastest{within} of the best."


def _importance(study: Study) -> Section:
    ordered = sorted(study.importance.items(), key=lambda item: -item[1])
    bars = [Bar(name=name, value=max(0.0, v), text=f"{v:.0%}") for name, v in ordered]
    return Section(
        title="Importance of the parameters",
        text=f"How much of the differences in {study.metric} each parameter explains.",
        chart=bar_chart(bars, label="importance of each parameter"),
    )


def _table(study: Study) -> PageTable:
    """A row per trial; empty columns are left out."""
    header = ["trial", "state", *METRICS, "rows per second", "parameters", "epoch", "seconds"]
    header += [*study.parameters, "error"]
    rows = [_row(trial, study.parameters) for trial in study.trials]
    filled = [i for i in range(len(header)) if any(row[i] for row in rows)]
    return PageTable(
        header=[header[i] for i in filled],
        rows=[[row[i] for i in filled] for row in rows],
        is_sortable=True,
    )


def _row(trial: Trial, names: list[str]) -> list[Cell]:
    return [
        _name(trial),
        trial.state,
        *(number(trial.metrics.get(name), ".4f") for name in METRICS),
        number(trial.rows_per_second, ",.0f"),
        number(trial.num_parameters, ",d"),
        number(trial.epoch, "d"),
        number(trial.seconds, ",.1f"),
        *(_parameter(trial.parameters.get(name)) for name in names),
        trial.error,
    ]


def _name(trial: Trial) -> str:
    return f"{trial.name} (chosen)" if trial.is_chosen else trial.name


def _parameter(value: object) -> Cell:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return number(value, ".4g" if isinstance(value, float) else "d")
    return "" if value is None else words(value)
