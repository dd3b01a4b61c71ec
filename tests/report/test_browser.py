"""Reports in a real browser: they draw, sort and copy, run nothing foreign and ask nobody."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from distlstm import write_report
from tests.report import directories
from tests.report.browser import EXECUTABLE, Page, browser
from tests.report.directories import HOSTILE

pytestmark = pytest.mark.skipif(EXECUTABLE is None, reason="no chromium or chrome on PATH")
MAKERS = {
    "study": lambda path: directories.study(path, hostile=True),
    "model": lambda path: directories.model(path, labels=HOSTILE),
    "language model": lambda path: directories.language_model(path, dropped=" ".join(HOSTILE)),
    "evaluation": lambda path: directories.evaluation(path, labels=HOSTILE),
    "predictions": lambda path: directories.predictions(
        path, labels=HOSTILE, name=f"{HOSTILE[1]}.parquet", errors=(HOSTILE[0],)
    ),
}
NUM_CHARTS = {"study": 6, "model": 3, "language model": 1, "evaluation": 0, "predictions": 2}
COLUMN = """(name => { const table = document.querySelector("table.sortable");
  const i = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent === name);
  return [...table.tBodies[0].rows].map(row => row.cells[i].textContent); })"""
HEADER = """(name => [...document.querySelectorAll("table.sortable th")]
  .find(cell => cell.textContent === name))"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(directories.study(tmp_path_factory.mktemp("study") / "study"))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_report_draws_its_charts_and_asks_nobody(page: Page, tmp_path: Path, kind: str) -> None:
    report = write_report(MAKERS[kind](tmp_path / kind))
    page.open(report)
    marks = page.value(
        "[...document.querySelectorAll('svg')].map(svg => svg.querySelectorAll("
        "'path, rect, polyline').length)"
    )
    assert len(marks) == NUM_CHARTS[kind]
    assert all(count > 2 for count in marks)
    drawn = page.value("[...document.querySelectorAll('svg')].map(svg => svg.clientHeight)")
    assert all(height > 50 for height in drawn)
    assert page.complaints == []
    assert page.requests == [report.absolute().as_uri()]


@pytest.mark.parametrize("kind", MAKERS)
def test_markup_in_names_values_and_errors_is_shown_as_text(
    page: Page, tmp_path: Path, kind: str
) -> None:
    page.open(write_report(MAKERS[kind](tmp_path / kind)))
    shown = page.value("document.body.textContent")
    assert HOSTILE[0] in shown
    assert HOSTILE[1] in shown
    assert page.value("document.querySelectorAll('img, b, iframe, object, svg script').length") == 0
    assert page.value("document.scripts.length") == 1
    assert page.complaints == []


def test_a_script_that_slipped_in_would_not_run(page: Page, tmp_path: Path) -> None:
    report = write_report(directories.model(tmp_path / "m"))
    evil = "<script>document.title = 'hacked'</script><img src=x onerror=\"document.title = 'h'\">"
    report.write_text(report.read_text().replace("</body>", f"{evil}</body>"))
    page.open(report)
    assert page.value("document.title") == "Model m"
    assert any("Content Security Policy" in complaint for complaint in page.complaints)


def numbers(page: Page, column: str) -> list[float]:
    return [float(cell) for cell in page.value(f"{COLUMN}('{column}')") if cell]


def test_a_click_on_a_header_sorts_and_a_second_one_turns_round(page: Page, study: Path) -> None:
    page.open(study)
    for order, turned in (("ascending", False), ("descending", True)):
        page.click(f"{HEADER}('loss').querySelector('button')")
        found = numbers(page, "loss")
        assert found == sorted(found, reverse=turned)
        assert page.value(f"{HEADER}('loss').getAttribute('aria-sort')") == order
        assert page.value(f"{COLUMN}('loss')").count("") == 2
        assert page.value(f"{COLUMN}('loss')")[-2:] == ["", ""]  # of failed trials: last either way
    assert page.value("document.querySelectorAll('[aria-sort]').length") == 1
    assert page.value("location.hash") == "#sort=-loss"
    assert page.complaints == []


def test_the_keyboard_sorts(page: Page, study: Path) -> None:
    page.open(study)
    page.value(f"{HEADER}('training.learning_rate').querySelector('button').focus()")
    page.press_enter()
    assert numbers(page, "training.learning_rate") == sorted(
        numbers(page, "training.learning_rate")
    )


def test_a_link_can_name_the_order(page: Page, study: Path) -> None:
    page.open(study, "#sort=-rows%20per%20second")
    found = [
        float(cell.replace(",", "")) for cell in page.value(f"{COLUMN}('rows per second')") if cell
    ]
    assert found == sorted(found, reverse=True)
    page.open(study, "#sort=%E0%A4%A&sort[=")
    assert page.complaints == []


def test_the_best_configuration_can_be_copied(page: Page, study: Path) -> None:
    page.open(study)
    page.value("navigator.clipboard.writeText = async text => { window.copied = text; }")
    page.click("document.querySelector('.code button')")
    assert page.value("window.copied") == (study.parent / "best.toml").read_text()
    assert page.value("document.querySelector('.code button').textContent") == "Copied"


def test_nothing_is_wider_than_a_narrow_window(page: Page, study: Path) -> None:
    page.call(
        "Emulation.setDeviceMetricsOverride",
        width=400,
        height=900,
        deviceScaleFactor=1,
        mobile=False,
    )
    page.open(study)
    assert page.value("document.documentElement.scrollWidth") <= 400
    page.call("Emulation.clearDeviceMetricsOverride")


def test_without_scripts_everything_is_there_and_no_button_is_dead(page: Page, study: Path) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.open(study)
    page.call("Emulation.setScriptExecutionDisabled", value=False)
    assert page.value("document.querySelectorAll('tbody tr').length") == 24
    assert page.value("document.querySelectorAll('svg').length") == 6
    assert page.value("document.querySelectorAll('button').length") == 0
