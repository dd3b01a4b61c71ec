"""A chart of horizontal bars, each with a name and a value."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from distlstm.report.plot import WIDTH
from distlstm.report.svg import drawing, line, rectangle, shortened, text

_LEFT, _RIGHT, _ROW, _THICK = 210, 120, 24, 14
_NAME_LENGTH = 30


@dataclass(frozen=True, kw_only=True)
class Bar:
    """A bar; its length is proportional to its value, which is not below 0."""

    name: str
    value: float
    text: str


def bar_chart(bars: Sequence[Bar], *, label: str) -> Markup:
    """Draw bars from top to bottom, in the given order."""
    most = max((bar.value for bar in bars), default=0) or 1
    height = _ROW * len(bars) + 8
    marks = [line([(_LEFT, 2), (_LEFT, height - 2)], style="axis")]
    for i, bar in enumerate(bars):
        top = 4 + _ROW * i
        width = bar.value / most * (WIDTH - _LEFT - _RIGHT)
        middle = top + _THICK / 2 + 7
        title = f"{bar.name}: {bar.text}"
        name = shortened(bar.name, length=_NAME_LENGTH)
        marks += [
            text((_LEFT - 8, middle), name, anchor="end"),
            rectangle((_LEFT, top + 3), width=width, height=_THICK, style="c0", title=title),
            text((_LEFT + width + 8, middle), bar.text),
        ]
    return drawing(marks, width=WIDTH, height=height, label=label)
