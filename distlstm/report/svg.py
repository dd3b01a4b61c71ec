"""SVG elements: escaped text, no scripts, colours from the classes of page.css."""

import math
from collections.abc import Iterable

from markupsafe import Markup

Place = tuple[float, float]
"""Pixels from the left and from the top of a drawing."""

SHADES = 7
"""Classes s0 (poor) to s6 (good)."""
_SHAPES = {
    "dot": "M{0} {1}m-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0",
    "ring": "M{0} {1}m-7 0a7 7 0 1 0 14 0a7 7 0 1 0-14 0",
    "stop": "M{0} {1}m0-5v10",
    "cross": "M{0} {1}m-4-4l8 8m0-8l-8 8",
}


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """An element. Attributes in Python's spelling (`stroke_width`, `class_`); None is left out."""
    head = Markup("").join(
        Markup(' {}="{}"').format(key.rstrip("_").replace("_", "-"), _plain(value))
        for key, value in attributes.items()
        if value is not None
    )
    return Markup("<{0}{1}>{2}</{0}>").format(name, head, Markup("").join(children))


def mark(shape: str, place: Place, *, style: str, title: str = "") -> Markup:
    """A dot, a ring around one, a bar or a cross at a place, with a tooltip."""
    drawn = _SHAPES[shape].format(_plain(place[0]), _plain(place[1]))
    return tag("path", *_tooltip(title), d=drawn, class_=f"mark {shape} {style}")


def line(places: Iterable[Place], *, style: str, title: str = "") -> Markup:
    """A line through places, with a tooltip."""
    points = " ".join(f"{_plain(x)},{_plain(y)}" for x, y in places)
    return tag("polyline", *_tooltip(title), points=points, class_=f"line {style}")


def rectangle(place: Place, *, width: float, height: float, style: str, title: str = "") -> Markup:
    """A filled rectangle, from its upper left corner, with a tooltip."""
    x, y = place
    return tag(
        "rect", *_tooltip(title), x=x, y=y, width=width, height=height, class_=f"bar {style}"
    )


def text(place: Place, words: str, *, anchor: str = "start", style: str | None = None) -> Markup:
    """Text that starts, ends or is centred at a place."""
    x, y = place
    return tag("text", words, x=x, y=y, text_anchor=anchor, class_=style)


def drawing(content: Iterable[Markup], *, width: float, height: float, label: str) -> Markup:
    """A whole picture; `label` describes it for screen readers."""
    return tag(
        "svg",
        *content,
        viewBox=f"0 0 {_plain(width)} {_plain(height)}",
        width=width,
        height=height,
        role="img",
        aria_label=label,
    )


def shade(share: float | None) -> str:
    """The class of a share from 0 (poor) to 1 (good); grey for None."""
    return "s-none" if share is None else f"s{min(SHADES - 1, max(0, math.floor(share * SHADES)))}"


def colour(index: int) -> str:
    """The class of the n-th of several items."""
    return f"c{index % 6}"


def shortened(words: str, *, length: int) -> str:
    """Text cut to a length, with an ellipsis."""
    return words if len(words) <= length else words[: length - 1] + "…"


def _tooltip(title: str) -> tuple[Markup, ...]:
    return (tag("title", title),) if title else ()


def _plain(value: object) -> str:
    return f"{round(value, 1):g}" if isinstance(value, float) else str(value)
