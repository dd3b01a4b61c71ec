"""Charts that compare studies: a colour for each study, the same in all charts."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

from markupsafe import Markup

from distlstm.report.axes import numbers
from distlstm.report.plot import WIDTH, Plot
from distlstm.report.study_charts import front, metric_title, trial_order, trial_title
from distlstm.report.study_data import Study, Trial
from distlstm.report.svg import colour, line, mark, shortened, text

MOST_STUDIES = 12
"""In one chart: six colours, each with two kinds of lines and marks."""
_COLOURS, _COLUMNS, _ROW, _NAME_LENGTH = 6, 2, 18, 46


def common_metric(studies: Iterable[Study]) -> str:
    """The metric by which most of them rank their trials."""
    return Counter(study.metric for study in studies).most_common(1)[0][0]


def histories_chart(studies: Sequence[Study]) -> Markup | None:
    """The best of each study so far, by the number of its trials; all have the same metric."""
    lines = {study.name: _best_so_far(study) for study in studies}
    places = [place for course in lines.values() for place in course]
    if not places:
        return None
    plot = Plot(
        x=numbers([x for x, _ in places], title="trials", is_log=False, is_whole=True),
        y=numbers([y for _, y in places], title=metric_title(studies[0]), is_log=False),
        **_room(studies),
    )
    marks = [*_legend(studies)]
    for i, (name, course) in enumerate(lines.items()):
        if course:
            drawn = [plot.at(*place) for place in course]
            marks.append(line(drawn, style=f"{_line_style(i)} thick", title=name))
            marks.append(mark(_shape(i), drawn[-1], style=colour(i), title=name))
    return plot.draw(marks, label=f"the best {studies[0].metric} so far, a line for each study")


def fronts_chart(studies: Sequence[Study]) -> Markup | None:
    """The metric of each trial against rows per second, with the Pareto front of all studies."""
    points = [
        (i, study, trial, trial.rows_per_second, trial.metrics[study.metric])
        for i, study in enumerate(studies)
        for trial in reversed(study.trials)
        if trial.rows_per_second and study.metric in trial.metrics
    ]
    if not points:
        return None
    places = [(x, y) for *_, x, y in points]
    plot = Plot(
        x=numbers([x for x, _ in places], title="rows per second, one worker"),
        y=numbers([y for _, y in places], title=metric_title(studies[0]), is_log=False),
        **_room(studies),
    )
    best = front(places, less_is_better=studies[0].less_is_better)
    marks = [*_legend(studies), line([plot.at(*place) for place in best], style="lead")]
    for i, study, trial, x, y in points:
        title = f"{study.name}, {trial_title(study, trial)}"
        marks.append(mark(_shape(i), plot.at(x, y), style=colour(i), title=title))
    return plot.draw(marks, label=f"{studies[0].metric} against rows per second, by study")


def _best_so_far(study: Study) -> list[tuple[float, float]]:
    """Steps through the best figure after each trial that has one."""
    ordered: list[Trial] = sorted(study.trials, key=trial_order)
    figures = [t.metrics[study.metric] for t in ordered if study.metric in t.metrics]
    best = list(accumulate(figures, min if study.less_is_better else max))
    steps = [(1.0, best[0])] if best else []
    for i, (before, now) in enumerate(pairwise(best), start=2):
        steps += [(float(i), before), (float(i), now)]
    return steps


def _room(studies: Sequence[Study]) -> dict[str, float]:
    """The height of a plot with the legend on top."""
    legend = _ROW * -(-len(studies) // _COLUMNS) + 8
    return {"height": 300 + legend, "top": 28 + legend}


def _legend(studies: Sequence[Study]) -> Iterable[Markup]:
    for i, study in enumerate(studies):
        row, column = divmod(i, _COLUMNS)
        left, middle = 4 + column * WIDTH / _COLUMNS, 30 + row * _ROW
        yield line([(left, middle), (left + 24, middle)], style=f"{_line_style(i)} thick")
        yield mark(_shape(i), (left + 12, middle), style=colour(i))
        yield text((left + 32, middle + 4), shortened(study.name, length=_NAME_LENGTH))


def _line_style(index: int) -> str:
    return colour(index) + (" dashed" if index // _COLOURS % 2 else "")


def _shape(index: int) -> str:
    return "cross" if index // _COLOURS % 2 else "dot"
