"""Tests of the report of a study: also of one that has only begun, or went wrong."""

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distlstm.errors import UserError
from distlstm.report.study import write_study_report
from distlstm.report.study_charts import front
from distlstm.report.study_data import Epoch, read_study
from distlstm.report.study_timeline import timeline_of
from tests.report import directories

CHARTS = ["History", "Learning curves", "Parameters", "Quality and speed"]


def page_of(path: Path) -> str:
    write_study_report(path)
    return (path / "report.html").read_text(encoding="utf-8")


def titles(page: str) -> list[str]:
    return re.findall("<h2>(.*?)</h2>", page)


def trial(name: str, **metadata: Any) -> dict[str, Any]:
    empty = {"accuracy": None, "macro_f1": None, "loss": None, "rows_per_second": None}
    row = {"trial": name, "state": "done", "epoch": 2, "seconds": 3.0, "error": None, **empty}
    return {**row, "num_parameters": 10, "is_chosen": False, "model.hidden_dim": 64, **metadata}


def test_a_finished_study_shows_everything(tmp_path: Path) -> None:
    page = page_of(directories.study(tmp_path / "s"))
    assert titles(page) == [
        *CHARTS,
        "Importance of the parameters",
        "Workers",
        "Trials, best first",
        "The best configuration",
    ]
    assert "24 trials" in page
    assert page.count("</tr>") == 25
    assert "3 (chosen)" in page


def test_two_hundred_trials_fit_into_a_small_page(tmp_path: Path) -> None:
    page = page_of(directories.study(tmp_path / "s", num_trials=200))
    assert page.count("</tr>") == 201
    assert len(page) < 2**20


def test_a_study_that_has_only_begun_says_so(tmp_path: Path) -> None:
    directories.write_study(tmp_path, [], [], finished=False, result=None, importance={})
    (tmp_path / "best.toml").unlink()
    page = page_of(tmp_path)
    assert titles(page) == ["No result yet"]
    assert "not finished" in page


def test_a_study_of_failed_trials_says_why(tmp_path: Path) -> None:
    failed = [trial(str(i), state="failed", error=f"boom {i}", loss=float("nan")) for i in range(3)]
    directories.write_study(tmp_path, failed, [], importance={}, preferred=None)
    page = page_of(tmp_path)
    assert titles(page)[0] == "No result yet"
    assert "boom 0" in page
    assert "nan" not in page.lower().split("<table")[0].replace("script", "")


@pytest.mark.parametrize("count", [1, 2])
def test_one_trial_is_enough_for_charts(tmp_path: Path, count: int) -> None:
    path = directories.study(tmp_path / "s", num_trials=count)
    assert titles(page_of(path))[:4] == CHARTS


@pytest.mark.parametrize("epochs", [0, 1])
def test_charts_without_data_are_left_out(tmp_path: Path, epochs: int) -> None:
    rows = [{"trial": "0", "epoch": 1, "macro_f1": float("nan"), "started": None}] * epochs
    trials = [trial("0", macro_f1=0.5), trial("1", macro_f1=float("nan"))]
    directories.write_study(tmp_path, trials, rows)
    found = titles(page_of(tmp_path))
    assert found[:2] == ["History", "Parameters"]
    assert "Workers" not in found


def test_a_study_of_an_earlier_version_is_shown(tmp_path: Path) -> None:
    """Without what it did not record: speed, which was chosen, epochs, importance."""
    new = ("rows_per_second", "num_parameters", "is_chosen")
    trials = [trial(f"{name}c0ffee", macro_f1=0.5 + name) for name in (2, 1)]
    trials = [{k: v for k, v in row.items() if k not in new} for row in trials]
    directories.write_study(tmp_path, trials, [], metric=None, importance=None, preferred=None)
    assert titles(page_of(tmp_path))[:2] == ["History", "Parameters"]


def test_less_loss_is_better(tmp_path: Path) -> None:
    path = directories.study(tmp_path / "s", metric="loss")
    study = read_study(path)
    best = max(study.goodness, key=lambda name: study.goodness[name])
    least = min((t for t in study.trials if t.metrics), key=lambda t: t.metrics["loss"])
    assert best == least.name
    assert "less is better" in page_of(path)


def test_parameters_of_every_type_have_an_axis(tmp_path: Path) -> None:
    values = {"model.a": [True, None], "model.b": [["x", "y"], []], "model.c": [1, 10**12]}
    values |= {"training.c": [0.0, -0.5], "model.d": ["<b>", "é"]}
    trials = [
        trial(str(i), macro_f1=0.5 + i / 10, **{k: v[i] for k, v in values.items()}) for i in (0, 1)
    ]
    directories.write_study(tmp_path, trials, [])
    page = page_of(tmp_path)
    axes = re.findall('class="title">(.*?)<', page)
    assert {"hidden_dim", "a", "b", "model.c", "training.c", "d"} <= set(axes)


@pytest.mark.parametrize(
    ("less_is_better", "expected"), [(False, [(1, 9), (3, 7), (4, 5)]), (True, [(2, 1), (4, 5)])]
)
def test_the_front_is_what_no_other_beats(
    less_is_better: bool, expected: list[tuple[float, float]]
) -> None:
    points = [(1, 9), (2, 1), (2, 6), (3, 7), (3, 6), (4, 5), (1, 8)]
    assert front(points, less_is_better=less_is_better) == expected


def epoch(worker: str, started: float | None, ended: float | None) -> Epoch:
    return Epoch(trial="0", epoch=1, metrics={}, started=started, ended=ended, worker=worker)


def test_the_busy_share_counts_overlaps_once() -> None:
    timeline = timeline_of(
        [epoch("a", 100, 104), epoch("a", 102, 106), epoch("b", 101, 104), epoch("b", None, 9)]
    )
    assert timeline is not None
    assert (timeline.length, timeline.cuts) == (6, [])
    assert [timeline.share(worker) for worker in timeline.workers] == [1, 0.5]


def test_a_pause_between_two_commands_is_left_out() -> None:
    timeline = timeline_of([epoch("a", 100, 110), epoch("a", 5000, 5010), epoch("b", 5010, 5020)])
    assert timeline is not None
    assert (timeline.length, timeline.cuts, timeline.left_out) == (30, [10], 4890)
    assert [busy.start for busy in timeline.work] == [0, 10, 20]


def test_no_times_give_no_timeline() -> None:
    assert timeline_of([epoch("a", None, None), epoch("a", 5, 5)]) is None


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not an output of tune"):
        write_study_report(tmp_path)


def test_the_table_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    path = directories.study(tmp_path / "s")
    order = [row["trial"] for row in pq.read_table(path / "trials.parquet").to_pylist()]
    found = re.findall(r"<tr><td>(\d+)", page_of(path))
    assert found == order
    assert pa.array(order).null_count == 0
