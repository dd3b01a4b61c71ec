"""Rendering a page: one template, everything inline, every value escaped."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from distlstm.atomic import write_text

REPORT_FILE = "report.html"


@dataclass(frozen=True, kw_only=True)
class PageTable:
    """A table of a page; the cells of `numeric` columns are aligned to the right."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numeric: int = 1
    """Index of the first numeric column."""


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page, from top to bottom: text, chart, table."""

    title: str
    text: str = ""
    chart: Markup | None = None
    table: PageTable | None = None
    code: str = ""


@dataclass(frozen=True, kw_only=True)
class Page:
    """A report."""

    title: str
    subtitle: str
    figures: Sequence[tuple[str, str]] = ()
    """Names and values at the top."""
    sections: Sequence[Section] = field(default_factory=list)


def write_page(page: Page, path: Path) -> None:
    """Render a page to a file, whole or not at all."""
    environment = Environment(
        loader=PackageLoader("distlstm.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    write_text(path, environment.get_template("page.html").render(page=page))
