"""Tests of the index page of several runs: what it compares, and what a browser shows."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from distlstm import write_report
from distlstm.config import ExperimentConfig
from distlstm.report.run_charts import MOST_STUDIES
from distlstm.storage import storage_at
from tests.commands import run
from tests.object_store import environment_of, running_store
from tests.report import directories
from tests.report.browser import EXECUTABLE, Page, browser
from tests.report.directories import HOSTILE

in_a_browser = pytest.mark.skipif(EXECUTABLE is None, reason="no chromium or chrome on PATH")
ROWS = """[...document.querySelectorAll('table')[0].tBodies[0].rows].filter(row => !row.hidden)
  .map(row => row.cells[0].textContent)"""


def with_setting(path: Path, section: str, **changes: object) -> Path:
    """A model whose configuration has other values."""
    file = directories.model(path) / "model.json"
    metadata = json.loads(file.read_text())
    metadata[section] |= changes
    file.write_text(json.dumps(metadata))
    return path


def team(path: Path) -> Path:
    """Two studies, three models of which one differs, and a run of each other kind."""
    directories.study(path / "studies/wide", num_trials=20)
    directories.study(path / "studies/deep", num_trials=12, hostile=True)
    write_report(directories.model(path / "models/a"))
    directories.model(path / "models/b")
    with_setting(path / "models/c", "model", hidden_dim=512)
    directories.language_model(path / f"lm {HOSTILE[2].replace('/', '')}")
    directories.evaluation(path / "evaluation #1")
    write_report(directories.evaluation(path / "evaluation #2"))
    directories.predictions(path / "nightly")
    return path


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(write_report(team(tmp_path_factory.mktemp("index") / "team")))


def test_the_command_writes_an_index_of_a_directory_with_runs_below_it(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = team(tmp_path / "team")
    assert run(capfd, "report", path).out.strip() == str(path / "report.html")
    page = (path / "report.html").read_text(encoding="utf-8")
    for shown in (
        "<h1>Runs in team</h1>",
        "3 models, 2 evaluations, 2 studies, 1 language model, 1 prediction run",
        'href="./models/a/report.html"',
        'href="./evaluation%20%232/report.html"',
        '<td class="marked">512</td>',
    ):
        assert shown in page, shown
    assert "models/b/report.html" not in page, "there is no such report"
    assert HOSTILE[2] not in page


def test_settings_are_side_by_side_if_they_differ_and_listed_once_if_not(tmp_path: Path) -> None:
    for name in ("a", "b"):
        directories.model(tmp_path / name)
    with_setting(tmp_path / "c", "training", learning_rate=0.5)
    page = Path(write_report(tmp_path)).read_text(encoding="utf-8")
    differs, same = page.split("what differs</h2>")[1].split("the same in all")
    assert '<td class="marked">0.5</td>' in differs
    assert "<td>0.003</td>" in differs
    assert "training.learning_rate" not in same
    assert f"<td>{ExperimentConfig().model.dropout:g}</td>" in same


def test_only_the_newest_studies_are_drawn_and_the_page_says_so(tmp_path: Path) -> None:
    for i in range(MOST_STUDIES + 3):
        directories.study(tmp_path / f"s{i:02d}", num_trials=5)
    (tmp_path / "s00/trials.parquet").write_bytes(b"no table")
    page = Path(write_report(tmp_path)).read_text(encoding="utf-8")
    assert f"The {MOST_STUDIES} newest are shown; 3 more are older" in page


def test_studies_of_different_metrics_are_drawn_by_that_of_most(tmp_path: Path) -> None:
    for name, metric in (("a", "loss"), ("b", "macro_f1"), ("c", "macro_f1")):
        directories.study(tmp_path / name, num_trials=5, metric=metric)
    assert "The best macro_f1 of each study" in Path(write_report(tmp_path)).read_text("utf-8")


def test_an_index_in_an_object_store_links_to_the_reports_there(tmp_path: Path) -> None:
    source = team(tmp_path / "team")
    with running_store() as store, environment_of(store.variables):
        storage = storage_at("s3://bucket/team")
        for file in filter(Path.is_file, source.rglob("*")):
            storage.write_file(file.relative_to(source).as_posix(), file)
        assert write_report("s3://bucket/team") == "s3://bucket/team/report.html"
        page = storage.read_text("report.html")
    assert 'href="./models/a/report.html"' in page
    assert page.count("<svg") == 2


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser") / "profile") as page:
        yield page


@in_a_browser
def test_the_index_draws_its_charts_and_asks_nobody(page: Page, index: Path) -> None:
    page.open(index)
    assert len(page.value(ROWS)) == 9
    marks = page.value("[...document.querySelectorAll('svg')].map(svg => svg.clientHeight)")
    assert len(marks) == 2
    assert min(marks) > 100
    assert page.value("document.querySelectorAll('img, b, iframe, svg script').length") == 0
    assert page.complaints == []
    assert page.requests == [index.absolute().as_uri()]


@in_a_browser
def test_words_filter_the_runs_and_the_address_keeps_them_with_the_order(
    page: Page, index: Path
) -> None:
    page.open(index)
    page.click("document.querySelector('.filter input')")
    page.call("Input.insertText", text="MODELS/ finished")
    assert page.value(ROWS) == ["models/c", "models/b", "models/a"]
    assert page.value("document.querySelector('.filter output').textContent") == "3 of 9"
    page.click("document.querySelector('th button')")
    assert page.value(ROWS) == ["models/a", "models/b", "models/c"]
    address = page.value("location.hash")
    page.open(index, address)
    assert page.value(ROWS) == ["models/a", "models/b", "models/c"]
    assert page.value("document.querySelector('.filter input').value") == "MODELS/ finished"
    assert page.complaints == []


@in_a_browser
def test_a_link_leads_to_the_report_of_its_run(page: Page, index: Path) -> None:
    page.open(index)
    for name, title in (("models/a", "Model a"), ("evaluation #2", "Evaluation")):
        link = f"[...document.querySelectorAll('td a')].find(a => a.textContent === '{name}')"
        address = page.value(f"{link}.pathname")
        page.open(Path(page.value(f"decodeURIComponent({json.dumps(address)})")))
        assert page.value("document.title") == title
        page.open(index)


@in_a_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_the_index_fits_its_window_and_can_be_read_in_light_and_dark(
    page: Page, index: Path, width: int, scheme: str
) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    page.call("Emulation.setDeviceMetricsOverride", **metrics)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    page.call("Emulation.setEmulatedMedia", features=[feature])
    page.open(index)
    assert page.value("document.documentElement.scrollWidth") <= width
    colours = page.value(
        "['color', 'backgroundColor'].map(name => getComputedStyle(document.body)[name]"
        ".match(/\\d+/g).map(Number))"
    )
    ink, ground = (float(np.mean(colour)) for colour in colours)
    assert abs(ink - ground) > 120
    assert (ground > ink) == (scheme == "light")
    page.call("Emulation.clearDeviceMetricsOverride")
    page.call("Emulation.setEmulatedMedia", features=[])


@in_a_browser
def test_without_scripts_the_index_is_complete_and_has_no_dead_field(
    page: Page, index: Path
) -> None:
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.open(index)
    page.call("Emulation.setScriptExecutionDisabled", value=False)
    assert len(page.value(ROWS)) == 9
    assert page.value("document.querySelectorAll('button, input').length") == 0
