"""Tests of distlstm.stages.output."""

import subprocess
import sys
from pathlib import Path

import pytest

from distlstm.errors import RunError, UserError
from distlstm.stages.run.output import (
    LOCK_FILE,
    check_output,
    check_same,
    flat,
    read_identity,
    record_identity,
    remove_content,
    sole_use,
)

HOLD = """
import sys, time
from pathlib import Path
from distlstm.stages.run.output import sole_use
with sole_use(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> subprocess.Popen[str]:
    """Another process that holds `tmp_path / "out"`."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_an_output_is_held_by_one_process_and_free_again_when_that_is_killed(
    holder: subprocess.Popen[str], tmp_path: Path
) -> None:
    output = tmp_path / "out"
    with pytest.raises(UserError, match=r"Another command is at work on .*out"), sole_use(output):
        pytest.fail("held twice")
    assert (output / LOCK_FILE).exists()
    holder.kill()
    holder.communicate()
    with sole_use(output):
        assert (output / LOCK_FILE).exists()
    assert list(output.iterdir()) == []


def test_an_output_is_free_again_after_an_error_and_its_content_stays(tmp_path: Path) -> None:
    (tmp_path / "part").write_text("x")
    with pytest.raises(ZeroDivisionError), sole_use(tmp_path):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["part"]
    with sole_use(tmp_path):
        remove_content(tmp_path)
        with pytest.raises(UserError), sole_use(tmp_path):
            pytest.fail("the lock went with the content")


@pytest.mark.parametrize("names", [["notes.txt"], ["part.parquet", "_SUCCESS"], [LOCK_FILE, "x"]])
def test_a_directory_of_something_else_is_refused_and_not_touched(
    tmp_path: Path, names: list[str]
) -> None:
    for name in names:
        (tmp_path / name).write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="was not made by this command"):
            check_output(tmp_path, marks=("_manifest.json",), overwrite=overwrite)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        names, "mine"
    )


@pytest.mark.parametrize("names", [[], [LOCK_FILE], ["_manifest.json", "x"]])
def test_a_new_output_and_one_of_ours_are_taken(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("")
    check_output(tmp_path, marks=("_manifest.json",), overwrite=False)
    check_output(tmp_path / "absent", marks=("_manifest.json",), overwrite=False)
    assert len(list(tmp_path.iterdir())) == len(names)


def test_a_changed_command_is_refused_with_what_differs(tmp_path: Path) -> None:
    identity = flat({"model": {"cell": "lstm", "pooling": ("max", "last")}, "seed": 3})
    record_identity(tmp_path / "run.json", identity)
    recorded = read_identity(tmp_path / "run.json")
    assert recorded == identity
    check_same(tmp_path, recorded, identity)
    with pytest.raises(UserError, match=r"model\.cell was 'lstm', is 'gru'") as raised:
        check_same(tmp_path, recorded, identity | {"model.cell": "gru"})
    assert "seed" not in str(raised.value)


def test_an_output_that_cannot_be_made_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with (
        pytest.raises(RunError, match=r"file/out cannot be written"),
        sole_use(tmp_path / "file/out"),
    ):
        pytest.fail("held what is not there")
