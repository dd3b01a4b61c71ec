"""A plot: two axes with ticks and titles, and marks between them."""

from collections.abc import Iterable
from dataclasses import dataclass

from markupsafe import Markup

from distlstm.report.axes import Numbers
from distlstm.report.svg import Place, drawing, line, text

WIDTH = 760


@dataclass(frozen=True, kw_only=True)
class Plot:
    """The geometry of a plot, in pixels."""

    x: Numbers
    y: Numbers
    height: float = 300
    width: float = WIDTH
    left: float = 58
    right: float = 20
    top: float = 28
    bottom: float = 46

    def at(self, x: float, y: float) -> Place:
        """The place of a point."""
        return (
            self.left + self.x.place(x) * (self.width - self.left - self.right),
            self.floor - self.y.place(y) * (self.floor - self.top),
        )

    @property
    def floor(self) -> float:
        """The height of the x axis, where y is lowest."""
        return self.height - self.bottom

    def draw(self, marks: Iterable[Markup], *, label: str) -> Markup:
        """Draw the plot, with `marks` on top of the grid."""
        content = [*self._horizontal(), *self._vertical(), *marks]
        return drawing(content, width=self.width, height=self.height, label=label)

    def _horizontal(self) -> Iterable[Markup]:
        end = self.width - self.right
        for share, name in self.y.ticks:
            y = self.floor - share * (self.floor - self.top)
            yield line([(self.left, y), (end, y)], style="grid")
            yield text((self.left - 7, y + 4), name, anchor="end")
        yield text((4, 13), self.y.title, style="title")

    def _vertical(self) -> Iterable[Markup]:
        end = self.width - self.right
        yield line([(self.left, self.floor), (end, self.floor)], style="axis")
        for share, name in self.x.ticks:
            x = self.left + share * (end - self.left)
            yield line([(x, self.floor), (x, self.floor + 4)], style="axis")
            yield text((x, self.floor + 17), name, anchor="middle")
        middle = (self.left + end) / 2
        yield text((middle, self.height - 7), self.x.title, anchor="middle", style="title")
