"""Tests of where things may lie: what is not supported is refused before anything starts."""

from pathlib import Path

import pytest

from distlstm.errors import UserError
from distlstm.storage.location import on_disk
from distlstm.worker_range import WorkerRange
from tests.commands import run


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "data.parquet", "--output", "s3://bucket/model"],
        ["tune", "data.parquet", "--output", "gs://bucket/study"],
        ["batch-predict", "in", "--model", "s3://bucket/model", "--output", "out"],
        ["batch-predict", "in", "--model", "model", "--output", "ftp://host/out"],
        ["verify", "s3://bucket/out"],
    ],
)
def test_a_location_that_must_be_on_a_disk_is_refused_at_once(
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = run(capfd, *arguments)
    assert outcome.code == 2
    assert "is not on a disk" in outcome.err
    assert list(tmp_path.iterdir()) == []


def test_a_file_uri_is_a_path() -> None:
    assert on_disk("file:///data/my%20model") == Path("/data/my model")
    assert on_disk("model") == Path("model")


@pytest.mark.parametrize("value", [4, (4, 4), "4:4"])
def test_one_number_of_workers_is_the_least_and_the_most(value: object) -> None:
    assert WorkerRange.of(value) == WorkerRange(4, 4) == WorkerRange.parse("4")


@pytest.mark.parametrize("value", ["2:8", (2, 8), WorkerRange(2, 8)])
def test_a_range_of_workers(value: object) -> None:
    assert str(WorkerRange.of(value)) == "2:8"


@pytest.mark.parametrize("value", [0, -1, True, "0", "8:2", "2:", ":2", "two", (1, 2, 3), 1.5])
def test_what_is_no_number_of_workers_is_refused(value: object) -> None:
    with pytest.raises(UserError, match="must be a whole number"):
        WorkerRange.of(value)
