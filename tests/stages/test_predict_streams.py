"""Tests of `predict` as a filter: what comes in on standard input, and what cannot go out."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.ray


def predict(model: Path, *texts: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, **options.pop("environment", {})}
    return subprocess.run(
        [sys.executable, "-m", "distlstm", "predict", "--model", str(model), *texts],  # type: ignore[list-item]
        stdout=options.pop("stdout", subprocess.PIPE),
        stderr=subprocess.PIPE,
        check=False,
        env=environment,
        timeout=300,
        **options,
    )


def test_blank_lines_marks_and_bytes_that_are_not_utf8(model: Path) -> None:
    lines = b"\xef\xbb\xbfgoal team\n\n \t\r\nbank \xff market\n"
    rows = [json.loads(line) for line in predict(model, input=lines).stdout.splitlines()]
    assert [row["text"] for row in rows] == ["goal team", "", " \t", "bank \ufffd market"]
    assert [row["predicted_label"] for row in rows] == ["sport", None, None, "money"]
    assert [row["predicted_score"] is None for row in rows] == [False, True, True, False]
    again = predict(model, "goal team", "", " \t", b"bank \xff market")
    assert [json.loads(line) for line in again.stdout.splitlines()] == rows


def test_an_encoding_that_lacks_a_character_is_named_with_what_to_set(model: Path) -> None:
    ended = predict(model, "天气 今天", environment={"PYTHONIOENCODING": "ascii"})
    assert ended.returncode == 1
    (line,) = ended.stderr.decode().splitlines()
    assert "ascii" in line
    assert "PYTHONIOENCODING=utf-8" in line


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_device_is_said_in_one_sentence(model: Path) -> None:
    with Path("/dev/full").open("w") as full:
        ended = predict(model, "goal", stdout=full)
    assert ended.returncode == 1
    assert ended.stderr.decode().strip() == (
        "Error: Standard output cannot be written: No space left on device."
    )
