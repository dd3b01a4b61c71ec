"""A histogram of one set of rows, with the outline of another set for comparison."""

from collections.abc import Sequence

from markupsafe import Markup

from distlstm.report.axes import Numbers
from distlstm.report.plot import Plot
from distlstm.report.svg import line, rectangle


def histogram_chart(
    counts: Sequence[int], *, beside: Sequence[int], x: Numbers, y_title: str, label: str
) -> Markup:
    """Draw `counts` as bars of equal width over the whole of x, and `beside` as an outline."""
    shares, others = _shares(counts), _shares(beside)
    y = Numbers(title=y_title, low=0, high=max([*shares, *others, 0.01]) * 1.05)
    plot = Plot(x=x, y=y)
    edges = [x.low + (x.high - x.low) * i / len(counts) for i in range(len(counts) + 1)]
    marks = []
    for i, share in enumerate(shares):
        left, top = plot.at(edges[i], share)
        right, floor = plot.at(edges[i + 1], 0)
        title = f"{edges[i]:.2f} to {edges[i + 1]:.2f}: {counts[i]:,} rows, {share:.1%}"
        marks.append(
            rectangle(
                (left + 1, top), width=right - left - 2, height=floor - top, style="c0", title=title
            )
        )
    if any(others):
        ends = [(edge, share) for i, share in enumerate(others) for edge in edges[i : i + 2]]
        marks.append(line([plot.at(*end) for end in ends], style="c1 thick"))
    return plot.draw(marks, label=label)


def _shares(counts: Sequence[int]) -> list[float]:
    total = sum(counts) or 1
    return [count / total for count in counts]
