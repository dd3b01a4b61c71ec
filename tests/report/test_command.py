"""Tests of `distlstm report`: any output of ours, by its files, and nothing else."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distlstm import write_report
from distlstm.stages.verify import verify
from distlstm.storage import LocalStorage
from tests.commands import run
from tests.report import directories

MAKERS = [
    (directories.study, "report.html", "Study it"),
    (directories.model, "report.html", "Model it"),
    (directories.language_model, "report.html", "Language model it"),
    (directories.evaluation, "report.html", "Evaluation"),
    (directories.predictions, "_report.html", "Predictions it"),
]


@pytest.mark.parametrize(("make", "name", "title"), MAKERS)
def test_the_command_writes_the_report_that_belongs_to_a_directory(
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
    make: Callable[[Path], Path],
    name: str,
    title: str,
) -> None:
    path = make(tmp_path / "it")
    code, out, _ = run(capfd, "report", path, "--json")
    assert (code, json.loads(out)) == (0, {"report": str(path / name)})
    assert f"<h1>{title}</h1>" in (path / name).read_text(encoding="utf-8")
    before = (path / name).read_bytes()
    assert run(capfd, "report", path).out.strip() == str(path / name)
    assert (path / name).read_bytes() == before


def damaged(name: str) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.mkdir()
        (path / name).write_text("{}")
        return path

    return make


@pytest.mark.parametrize(
    "make",
    [
        lambda path: path,
        lambda path: (path.mkdir(), path)[1],
        lambda path: (path.write_text("x"), path)[1],
        *map(damaged, ("model.json", "metrics.json", "_manifest.json")),
    ],
)
def test_anything_else_is_refused_in_one_sentence(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, make: Callable[[Path], Path]
) -> None:
    code, out, err = run(capfd, "report", make(tmp_path / "odd"))
    assert (code, out) == (2, "")
    assert str(tmp_path / "odd") in err.replace("\n", "")
    assert "should not happen" not in err


@pytest.mark.parametrize("content", ["[]", "nonsense", '{"run": 3}', '"\ud800"'])
def test_a_damaged_study_is_refused(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, content: str
) -> None:
    (tmp_path / "study.json").write_text(content, encoding="utf-8", errors="surrogatepass")
    assert run(capfd, "report", tmp_path).code == 2


def test_a_table_cut_short_is_refused(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = directories.study(tmp_path / "s")
    table = path / "trials.parquet"
    table.write_bytes(table.read_bytes()[:-9])
    code, _, err = run(capfd, "report", path)
    assert code == 2
    assert "damaged" in err


def test_a_lone_surrogate_does_not_stop_a_report(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = directories.evaluation(tmp_path / "e")
    metrics = path / "metrics.json"
    metrics.write_text(metrics.read_text().replace("sport", "\\ud800"))
    assert run(capfd, "report", path).code == 0


def test_the_report_of_predictions_is_no_part_of_them(
    capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = directories.predictions(tmp_path / "p")
    before = verify(LocalStorage(path)).faults
    run(capfd, "report", path)
    assert verify(LocalStorage(path)).faults == before


def test_a_report_of_predictions_compares_them_with_training(tmp_path: Path) -> None:
    page = write_report(directories.predictions(tmp_path / "p")).read_text()
    for shown in ("54.5% (33.3%)", "3.00%", "1.20%", "0/a.parquet", ">null<"):
        assert shown in page
    assert "Not finished" not in page
    bare = directories.predictions(tmp_path / "q", drift=False, errors=("disk full",))
    page = write_report(bare).read_text()
    assert "disk full" in page
    assert "training" not in page


def test_reports_are_written_without_ray_and_without_torch() -> None:
    code = "import distlstm.report.kinds, sys; assert not {'torch', 'ray'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
