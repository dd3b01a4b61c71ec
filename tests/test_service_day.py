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


def part(printed: str, command: str) -> str:
    """What a command printed, up to the next one."""
    return printed.partition(f"$ {command}")[2].partition("\n$ ")[0]


def test_a_day_of_jobs_a_comparison_and_a_service(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "examples/service.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60 * _MINUTES,
    )
    printed = done.stdout
    assert done.returncode == 0, printed + done.stderr

    assert part(printed, "distlstm jobs").count("succeeded") == 5
    written = re.findall(r"(\d+) parts written, (\d+) reused", printed)
    assert written == [("1", "0"), ("1", "1")]  # the second prediction is of what is new

    listed = part(printed, "distlstm runs")
    assert listed.count("finished") == 4
    for kind in ("study", "model", "evaluation", "predictions"):
        assert kind in listed
    assert "s3://lake/runs/report.html" in part(printed, "distlstm report")

    answer = json.loads(part(printed, "curl -s -X POST").partition("\n")[2])
    assert [row["label"] is not None for row in answer["predictions"]] == [True, True]
    counted = [float(value) for value in re.findall(r'runs/labels"\} (\S+)', printed)]
    assert len(counted) == 2
    assert min(counted) == 500
