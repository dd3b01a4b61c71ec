"""A line chart; a line may have a mark at its end."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from distlstm.report.axes import Numbers
from distlstm.report.plot import Plot
from distlstm.report.svg import line, mark, text


@dataclass(frozen=True, kw_only=True)
class Line:
    """A line through points, in the given order."""

    points: Sequence[tuple[float, float]]
    style: str
    """Classes of page.css."""
    title: str = ""
    """Tooltip."""
    end: str | None = None
    """Shape of the mark at its last point: dot, stop or cross."""
    name: str = ""
    """Its entry in the legend."""


def line_chart(
    lines: Sequence[Line], *, x: Numbers, y: Numbers, key: Sequence[Markup] = (), label: str
) -> Markup:
    """Draw lines, later ones on top, with a legend of names and a `key` to other colours."""
    named = [one for one in lines if one.name]
    plot = Plot(x=x, y=y, right=130 if named else 20)
    marks = [*key]
    for one in lines:
        places = [plot.at(*point) for point in one.points]
        marks.append(line(places, style=one.style, title=one.title))
        if one.end:
            marks.append(mark(one.end, places[-1], style=one.style, title=one.title))
    for i, one in enumerate(named):
        left, top = plot.width - plot.right + 12, plot.top + 10 + 20 * i
        marks.append(line([(left, top), (left + 16, top)], style=one.style))
        marks.append(text((left + 22, top + 4), one.name))
    return plot.draw(marks, label=label)
