"""A timeline with a lane for each worker."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from distlstm.report.axes import Numbers
from distlstm.report.plot import WIDTH
from distlstm.report.svg import drawing, line, rectangle, shortened, text

_LEFT, _RIGHT, _TOP, _LANE, _THICK, _BOTTOM = 150, 84, 8, 24, 16, 46
_CHARACTER, _NAME_LENGTH = 7.0, 21


@dataclass(frozen=True, kw_only=True)
class Span:
    """A period of work, in the unit of the axis."""

    start: float
    end: float
    style: str
    title: str
    """Tooltip."""
    name: str = ""
    """Written inside, if there is room."""


@dataclass(frozen=True, kw_only=True)
class Lane:
    """The periods of one worker."""

    name: str
    note: str
    spans: Sequence[Span]


def lane_chart(
    lanes: Sequence[Lane], *, time: Numbers, cuts: Sequence[float] = (), label: str
) -> Markup:
    """Draw lanes from top to bottom; `cuts` are the times at which a pause was left out."""
    floor = _TOP + _LANE * len(lanes)
    room = WIDTH - _LEFT - _RIGHT

    def across(value: float) -> float:
        return _LEFT + time.place(value) * room

    marks = list(_axis(time, floor, room))
    for i, lane in enumerate(lanes):
        top = _TOP + _LANE * i + (_LANE - _THICK) / 2
        name = shortened(lane.name, length=_NAME_LENGTH)
        marks.append(text((_LEFT - 8, top + 12), name, anchor="end"))
        marks.append(text((WIDTH - _RIGHT + 8, top + 12), lane.note))
        for span in lane.spans:
            marks += _span(span, across(span.start), across(span.end), top)
    for cut in cuts:
        marks.append(line([(across(cut), _TOP), (across(cut), floor)], style="cut"))
    return drawing(marks, width=WIDTH, height=floor + _BOTTOM, label=label)


def _span(span: Span, left: float, right: float, top: float) -> Iterable[Markup]:
    width = max(0.8, right - left - 0.6)
    yield rectangle((left, top), width=width, height=_THICK, style=span.style, title=span.title)
    if span.name and width > _CHARACTER * len(span.name) + 4:
        yield text((left + width / 2, top + 12), span.name, anchor="middle", style="in-bar")


def _axis(time: Numbers, floor: float, room: float) -> Iterable[Markup]:
    yield line([(_LEFT, floor), (_LEFT + room, floor)], style="axis")
    for share, name in time.ticks:
        x = _LEFT + share * room
        yield line([(x, _TOP), (x, floor)], style="grid")
        yield text((x, floor + 17), name, anchor="middle")
    yield text((_LEFT + room / 2, floor + 38), time.title, anchor="middle", style="title")
