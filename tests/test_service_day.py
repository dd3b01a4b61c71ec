"""`make demo-service`: a day of a team's service, from its cluster to its last request."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
_MINUTES = 15

pytestmark = [pytest.mark.ray, pytest.mark.fault]  # it takes minutes


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the day prints."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/service.py"), str(tmp_path_factory.mktemp("day"))],
        capture_output=True,
        text=True,
        timeout=60 * _MINUTES,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def part(printed: str, command: str) -> str:
    """What a command printed, up to the next one."""
    return printed.partition(f"$ {command}")[2].partition("\n$ ")[0]


def test_all_jobs_succeed_and_the_second_prediction_labels_only_what_is_new(printed: str) -> None:
    listed = part(printed, "distlstm jobs")
    assert listed.count("succeeded") == 5
    labels = [
        (int(written), int(reused))
        for written, reused in re.findall(r"(\d+) parts written, (\d+) reused", printed)
    ]
    assert labels == [(1, 0), (1, 1)]


def test_the_runs_are_listed_and_their_index_is_written(printed: str) -> None:
    listed = part(printed, "distlstm runs")
    assert listed.count("finished") == 4
    for kind in ("study", "model", "evaluation", "predictions"):
        assert kind in listed
    assert "s3://lake/runs/report.html" in part(printed, "distlstm report")


def test_the_service_answers_and_prometheus_has_the_rows(printed: str) -> None:
    answer = json.loads(part(printed, "curl -s").partition("\n")[2])
    assert [row["label"] is not None for row in answer["predictions"]] == [True, True]
    counts = [float(value) for value in re.findall(r'runs/labels"\} (\S+)', printed)]
    assert len(counts) == 2
    assert min(counts) == 500
