"""A scatter chart, with one line."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from distlstm.report.axes import Numbers
from distlstm.report.plot import Plot
from distlstm.report.svg import line, mark


@dataclass(frozen=True, kw_only=True)
class Point:
    """A mark at a point."""

    x: float
    y: float
    style: str
    title: str
    """Tooltip."""
    shape: str = "dot"
    is_ringed: bool = False


def scatter_chart(
    points: Sequence[Point],
    *,
    x: Numbers,
    y: Numbers,
    through: Sequence[tuple[float, float]],
    key: Sequence[Markup] = (),
    label: str,
) -> Markup:
    """Draw points on top of a line `through` some places, with a `key` to the colours."""
    plot = Plot(x=x, y=y)
    marks = [line([plot.at(*place) for place in through], style="lead")] if through else []
    for point in points:
        place = plot.at(point.x, point.y)
        marks.append(mark(point.shape, place, style=point.style, title=point.title))
        if point.is_ringed:
            marks.append(mark("ring", place, style="chosen", title=point.title))
    return plot.draw([*key, *marks], label=label)
