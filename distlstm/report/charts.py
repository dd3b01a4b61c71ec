"""Line charts as inline SVG: no script, no other host."""

from collections.abc import Mapping, Sequence

from jinja2 import Template
from markupsafe import Markup

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP, _RIGHT = 720, 260, 52, 30, 12, 130
_COLOURS = ("#2a7fb8", "#d1603d", "#3f9c6b", "#8a5fb5", "#b8912a", "#5c6b7a")
_TICKS = 4
_TEMPLATE = Template(
    """<svg viewBox="0 0 {{ width }} {{ height }}" role="img" aria-label="{{ label }}">
{% for y, text in y_ticks %}
<line x1="{{ left }}" x2="{{ right }}" y1="{{ y }}" y2="{{ y }}" stroke="#888" opacity=".3"/>
<text x="{{ left - 6 }}" y="{{ y + 4 }}" text-anchor="end">{{ text }}</text>
{% endfor %}
{% for x, text in x_ticks %}
<text x="{{ x }}" y="{{ height - 10 }}" text-anchor="middle">{{ text }}</text>
{% endfor %}
{% for line in lines %}
<polyline points="{{ line.points }}" fill="none" stroke="{{ line.colour }}" stroke-width="2"/>
{% for x, y in line.dots %}
<circle cx="{{ x }}" cy="{{ y }}" r="2.5" fill="{{ line.colour }}"/>
{% endfor %}
<text x="{{ right + 8 }}" y="{{ 20 + 18 * loop.index0 }}" style="fill: {{ line.colour }}">
{{ line.name }}</text>
{% endfor %}
</svg>""",
    autoescape=True,
)


def line_chart(lines: Mapping[str, Sequence[tuple[float, float]]], *, label: str) -> Markup:
    """Draw named lines of (x, y) points over common axes; x is counted in whole epochs."""
    points = [point for line in lines.values() for point in line]
    if not points:
        return Markup("")
    x_low, x_high = _range([x for x, _ in points])
    y_low, y_high = _range([y for _, y in points])
    right, floor = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            round(_LEFT + (x - x_low) / (x_high - x_low) * (right - _LEFT), 1),
            round(floor - (y - y_low) / (y_high - y_low) * (floor - _TOP), 1),
        )

    y_values = [y_low + (y_high - y_low) * i / _TICKS for i in range(_TICKS + 1)]
    x_values = sorted({round(x_low + (x_high - x_low) * i / _TICKS) for i in range(_TICKS + 1)})
    drawn = [
        {
            "name": name,
            "colour": _COLOURS[i % len(_COLOURS)],
            "dots": [place(x, y) for x, y in line],
            "points": " ".join(f"{a},{b}" for a, b in (place(x, y) for x, y in line)),
        }
        for i, (name, line) in enumerate(lines.items())
    ]
    return Markup(  # noqa: S704 (the template escapes; nothing else is in it)
        _TEMPLATE.render(
            width=_WIDTH,
            height=_HEIGHT,
            left=_LEFT,
            right=right,
            label=label,
            y_ticks=[(place(x_low, y)[1], f"{y:.3g}") for y in y_values],
            x_ticks=[(place(x, y_low)[0], str(x)) for x in x_values],
            lines=drawn,
        )
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)
