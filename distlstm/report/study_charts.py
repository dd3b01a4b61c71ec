"""The charts of a study. Colour shows a trial's rank in all of them but the timeline."""

from collections.abc import Iterable
from itertools import accumulate
from typing import Any

from markupsafe import Markup

from distlstm.report.axes import Categories, Numbers, number_text, numbers
from distlstm.report.line_chart import Line, line_chart
from distlstm.report.parallel_chart import Course, parallel_chart
from distlstm.report.plot import WIDTH
from distlstm.report.scatter_chart import Point, scatter_chart
from distlstm.report.study_data import Study, Trial
from distlstm.report.svg import SHADES, rectangle, shade, text

_ENDS = {"done": "dot", "stopped": "stop", "failed": "cross"}
_FEW = 6


def history_chart(study: Study) -> Markup | None:
    """The metric of each trial in the order of the trials, and the best so far as steps."""
    ordered = sorted(_with_figure(study), key=trial_order)
    if not ordered:
        return None
    at = _numbers(study)
    points = [
        _point(study, trial, x=at[trial.name], y=trial.metrics[study.metric]) for trial in ordered
    ]
    best = list(accumulate((p.y for p in points), min if study.less_is_better else max))
    steps = [(points[0].x, best[0])]
    for point, before, now in zip(points[1:], best, best[1:], strict=False):
        steps += [(point.x, before), (point.x, now)]
    steps.append((max(at.values()), best[-1]))
    return scatter_chart(
        points,
        x=numbers(list(at.values()), title="trial", is_log=False, is_whole=True),
        y=numbers([p.y for p in points], title=metric_title(study), is_log=False),
        through=steps,
        key=rank_key(),
        label=f"{study.metric} of every trial, and the best so far",
    )


def curves_chart(study: Study) -> Markup | None:
    """A line per trial, the best on top; the mark at its end shows how the trial ended."""
    curves = _curves(study)
    trials = [trial for trial in reversed(study.trials) if trial.name in curves]
    values = [value for curve in curves.values() for _, value in curve]
    if not values:
        return None
    lines = [
        Line(
            points=curves[trial.name],
            style=_style(study, trial, thick=" thick"),
            title=trial_title(study, trial),
            end=_ENDS.get(trial.state),
        )
        for trial in _chosen_last(trials)
    ]
    last = max(epoch for curve in curves.values() for epoch, _ in curve)
    return line_chart(
        lines,
        x=numbers([1, last], title="epoch", is_log=False, is_whole=True),
        y=numbers(values, title=metric_title(study), is_log=False),
        key=rank_key(),
        label=f"{study.metric} by epoch, a line per trial",
    )


def parameters_chart(study: Study) -> Markup | None:
    """A line per trial over its parameters and its metric, the best on top."""
    if not _with_figure(study) or not study.parameters:
        return None
    axes = [_parameter_axis(study, name) for name in study.parameters]
    figures = [trial.metrics[study.metric] for trial in _with_figure(study)]
    metric = numbers(figures, title=study.metric, is_log=False)
    courses = []
    for trial in _chosen_last(list(reversed(study.trials))):
        values = [
            _on_axis(axis, trial.parameters.get(name))
            for axis, name in zip(axes, study.parameters, strict=True)
        ]
        if study.metric in trial.metrics:
            values.append(trial.metrics[study.metric])
        if None not in values:
            style = _style(study, trial, thick=" thick")
            courses.append(Course(values=values, style=style, title=trial_title(study, trial)))
    label = f"parameters and {study.metric} of every trial"
    return parallel_chart([*axes, metric], courses, label=label)


def pareto_chart(study: Study) -> Markup | None:
    """The metric against rows per second, with the Pareto front."""
    measured = [trial for trial in _with_figure(study) if trial.rows_per_second]
    if not measured:
        return None
    points = [
        _point(study, trial, x=trial.rows_per_second or 0.0, y=trial.metrics[study.metric])
        for trial in _chosen_last(list(reversed(measured)))
    ]
    return scatter_chart(
        points,
        x=numbers([p.x for p in points], title="rows per second, one worker"),
        y=numbers([p.y for p in points], title=metric_title(study), is_log=False),
        through=front([(p.x, p.y) for p in points], less_is_better=study.less_is_better),
        key=rank_key(),
        label=f"{study.metric} against rows per second",
    )


def front(
    points: Iterable[tuple[float, float]], *, less_is_better: bool
) -> list[tuple[float, float]]:
    """The Pareto front of (speed, quality) points, from slow to fast."""
    sign = -1 if less_is_better else 1
    kept: list[tuple[float, float]] = []
    for x, y in sorted(points, key=lambda point: (-point[0], -sign * point[1])):
        if not kept or sign * y > sign * kept[-1][1]:
            kept.append((x, y))
    return kept[::-1]


def rank_key() -> list[Markup]:
    """The key to the colours of ranks, at the upper right of a plot."""
    right, size = WIDTH - 20 - 32, 14
    boxes = [
        rectangle((right - size * (SHADES - i), 4), width=size, height=9, style=f"s{i}")
        for i in range(SHADES)
    ]
    left = right - size * SHADES - 6
    ends = [text((left, 13), "worst", anchor="end"), text((right + 6, 13), "best")]
    return [*boxes, *ends]


def _numbers(study: Study) -> dict[str, float]:
    """The number of each trial, by name; its place in order if the names are not numbers."""
    names = [trial.name for trial in sorted(study.trials, key=trial_order)]
    if all(name.isdecimal() for name in names):
        return {name: int(name) for name in names}
    return {name: i for i, name in enumerate(names, 1)}


def metric_title(study: Study) -> str:
    """The axis title of the metric."""
    return f"{study.metric} on validation" + (" (less is better)" if study.less_is_better else "")


def trial_order(trial: Trial) -> tuple[int, str]:
    """The sort key of trials in the order of their numbers, in which they started."""
    return (int(trial.name) if trial.name.isdecimal() else 0, trial.name)


def trial_title(study: Study, trial: Trial) -> str:
    """The tooltip of a trial."""
    lines = [f"trial {trial.name}, {trial.state} after epoch {trial.epoch}"]
    lines += [f"{name} {trial.metrics[name]:.4f}" for name in trial.metrics]
    if trial.rows_per_second:
        lines.append(f"{trial.rows_per_second:,.0f} rows/s")
    if trial.num_parameters is not None:
        lines.append(f"{trial.num_parameters:,} parameters")
    lines += [f"{short(study, name)} = {words(v)}" for name, v in trial.parameters.items()]
    return "\n".join(lines)


def short(study: Study, name: str) -> str:
    """A parameter's name without its section, if that is unambiguous."""
    last = name.rpartition(".")[2]
    alike = [other for other in study.parameters if other.rpartition(".")[2] == last]
    return last if len(alike) == 1 else name


def words(value: Any) -> str:
    """A parameter's value as text."""
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _with_figure(study: Study) -> list[Trial]:
    return [trial for trial in study.trials if study.metric in trial.metrics]


def _chosen_last(trials: list[Trial]) -> list[Trial]:
    return sorted(trials, key=lambda trial: trial.is_chosen)


def _style(study: Study, trial: Trial, *, thick: str) -> str:
    if trial.is_chosen:
        return f"chosen{thick}"
    return shade(study.goodness.get(trial.name)) + (" faint" if thick else "")


def _point(study: Study, trial: Trial, *, x: float, y: float) -> Point:
    return Point(
        x=x,
        y=y,
        style=_style(study, trial, thick=""),
        title=trial_title(study, trial),
        shape=_ENDS.get(trial.state, "dot") if trial.state == "failed" else "dot",
        is_ringed=trial.is_chosen,
    )


def _curves(study: Study) -> dict[str, list[tuple[float, float]]]:
    """The metric of each trial by epoch."""
    curves: dict[str, dict[float, float]] = {}
    for epoch in study.epochs:
        if study.metric in epoch.metrics:
            curves.setdefault(epoch.trial, {})[epoch.epoch] = epoch.metrics[study.metric]
    return {name: sorted(curve.items()) for name, curve in curves.items()}


def _parameter_axis(study: Study, name: str) -> Numbers | Categories:
    """Categories for texts, choices and few values; else numbers, logarithmic if searched so."""
    values = [value for trial in study.trials if (value := trial.parameters.get(name)) is not None]
    title, kind = short(study, name), study.domains.get(name)
    if not all(type(value) in (int, float) for value in values) or not values:
        return Categories(title=title, names=tuple(sorted({words(value) for value in values})))
    if kind == "choice" or len(set(values)) <= _FEW:
        return Categories(title=title, names=tuple(dict.fromkeys(map(number_text, sorted(values)))))
    return numbers(values, title=title, is_log=kind == "loguniform" or None)


def _on_axis(axis: Numbers | Categories, value: Any) -> Any:
    """The value in the form that its axis takes; None for None."""
    if value is None:
        return None
    if isinstance(axis, Numbers):
        return value
    return number_text(value) if type(value) in (int, float) else words(value)
