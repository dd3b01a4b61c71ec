"""Renders a page: one template, everything inline, every value escaped, nothing from other hosts.

The page's Content-Security-Policy allows only the style and the script of this package, by digest,
so markup that slipped into a page could neither run nor load anything.
"""

import base64
import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from distlstm.atomic import write_text
from distlstm.stages.run.output import writing
from distlstm.storage import LocalStorage


@dataclass(frozen=True)
class Number:
    """A numeric cell: the text to show, and the value to sort by."""

    shown: str
    value: float


@dataclass(frozen=True)
class Link:
    """A cell that leads to another page below this one."""

    shown: str
    href: str
    """Relative address."""


@dataclass(frozen=True)
class Marked:
    """A cell that stands out."""

    shown: str


Cell = str | Number | Link | Marked


@dataclass(frozen=True, kw_only=True)
class PageTable:
    """A table of a page; numeric cells are aligned to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    is_sortable: bool = False
    """By a click on a header, or a link to `report.html#sort=HEADER` (`-HEADER`: descending)."""
    is_filterable: bool = False
    """By words in a field above it; its first column stays in sight."""

    @property
    def style(self) -> str:
        """Classes of page.css."""
        styles = {"sortable": self.is_sortable, "filterable": self.is_filterable}
        return " ".join(style for style, applies in styles.items() if applies)

    def is_numeric(self, column: int) -> bool:
        """Whether a column has numeric cells."""
        return any(isinstance(row[column], Number) for row in self.rows)


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page, from top to bottom: text, chart, table, code."""

    title: str
    text: str = ""
    chart: Markup | None = None
    table: PageTable | None = None
    code: str = ""
    """Shown as it is, with a copy button."""


@dataclass(frozen=True, kw_only=True)
class Page:
    """A report."""

    title: str
    subtitle: str
    figures: Sequence[tuple[str, str]] = ()
    """Names and values shown at the top."""
    sections: Sequence[Section] = field(default_factory=list)


def number(value: float | None, spec: str) -> Cell:
    """A number in a format of Python's format language; an empty cell if it is not finite."""
    if value is None or not math.isfinite(value):
        return ""
    return Number(format(value, spec), value)


def write_page(page: Page, path: Path) -> None:
    """Render a page to a file, atomically."""
    environment = Environment(
        loader=PackageLoader("distlstm.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    style, script = _own_text("page.css"), _own_text("page.js")
    content = environment.get_template("page.html").render(
        page=page, style=style, script=script, policy=_policy(style, script)
    )
    with writing(LocalStorage(path.parent)):
        write_text(path, content.encode("utf-8", "replace").decode("utf-8"))  # for lone surrogates


def _own_text(name: str) -> Markup:
    return Markup(files("distlstm.report").joinpath(name).read_text("utf-8"))  # noqa: S704 (ours)


def _policy(style: str, script: str) -> Markup:
    """Allow only our own style and script, and no other base URL or form target."""
    allowed = {"style-src": _digest(style), "script-src": _digest(script)}
    rules = [f"{kind} '{digest}'" for kind, digest in allowed.items()]
    never = ["base-uri 'none'", "form-action 'none'"]
    return Markup("; ").join(map(Markup, ["default-src 'none'", *rules, *never]))


def _digest(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
