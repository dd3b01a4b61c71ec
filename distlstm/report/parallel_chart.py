"""Parallel coordinates: a line per item across vertical axes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from distlstm.report.axes import Categories, Numbers
from distlstm.report.plot import WIDTH
from distlstm.report.svg import drawing, line, shortened, text

_TOP, _FLOOR, _HEIGHT, _SIDE, _APART = 46, 330, 350, 76, 112
_NAME_LENGTH, _MOST_NAMES = 13, 24


@dataclass(frozen=True, kw_only=True)
class Course:
    """A line: its values on the axes, from the first on; it may end before the last axis."""

    values: Sequence[Any]
    style: str
    title: str


def parallel_chart(
    axes: Sequence[Numbers | Categories], courses: Sequence[Course], *, label: str
) -> Markup:
    """Draw courses across axes, later ones on top. Many axes make the drawing wider."""
    width = max(WIDTH, 2 * _SIDE + _APART * (len(axes) - 1))
    gap = (width - 2 * _SIDE) / max(1, len(axes) - 1)
    lefts = [_SIDE + gap * i for i in range(len(axes))]

    def places(course: Course) -> Iterable[tuple[float, float]]:
        for left, axis, value in zip(lefts, axes, course.values, strict=False):
            yield left, _FLOOR - axis.place(value) * (_FLOOR - _TOP)

    marks = [line(places(course), style=course.style, title=course.title) for course in courses]
    for i, (left, axis) in enumerate(zip(lefts, axes, strict=True)):
        marks += _axis(axis, left, low=i % 2 == 1 and len(axes) > 5)
    return drawing(marks, width=width, height=_HEIGHT, label=label)


def _axis(axis: Numbers | Categories, left: float, *, low: bool) -> Iterable[Markup]:
    """A vertical axis, with its title at the lower (`low`) or the upper of two heights."""
    yield line([(left, _TOP), (left, _FLOOR)], style="axis")
    yield text((left, 30 if low else 14), axis.title, anchor="middle", style="title")
    ticks = axis.ticks if len(axis.ticks) <= _MOST_NAMES else ()
    for share, name in ticks:
        y = _FLOOR - share * (_FLOOR - _TOP)
        yield line([(left - 4, y), (left, y)], style="axis")
        words = shortened(name, length=_NAME_LENGTH)
        yield text((left - 7, y + 4), words, anchor="end", style="on-lines")
