"""Tests of distlstm.stages.run.output."""

import subprocess
import sys
from pathlib import Path

import pytest

from distlstm.errors import RunError, UserError
from distlstm.stages.run.output import (
    LOCK_FILE,
    Output,
    State,
    check_kind,
    check_same,
    flat,
    opened,
    read_identity,
    record_identity,
    sole_use,
)
from distlstm.storage import LocalStorage

HOLD = """
import sys, time
from pathlib import Path
from distlstm.stages.run.output import sole_use
from distlstm.storage import LocalStorage
with sole_use(LocalStorage(Path(sys.argv[1]))):
    print("held", flush=True)
    time.sleep(60)
"""


RUN, DONE = "run.json", "_manifest.json"


def output(path: Path, seed: int = 1, *, is_replaced_at_end: bool = False) -> Output:
    """An output that records its command in `run.json` and is finished with `_manifest.json`."""
    return Output(
        storage=LocalStorage(path),
        marks=(RUN, DONE),
        identity={"seed": seed},
        recorded=lambda: read_identity(path / RUN),
        is_finished=lambda: (path / DONE).exists(),
        begin=lambda: record_identity(path / RUN, {"seed": seed}),
        is_replaced_at_end=is_replaced_at_end,
    )


def state_of(path: Path, seed: int = 1, *, overwrite: bool = False) -> State:
    with opened(output(path, seed), overwrite=overwrite) as work:
        return work.state


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
    with (
        pytest.raises(UserError, match=r"Another command is at work on .*out"),
        sole_use(LocalStorage(output)),
    ):
        pytest.fail("held twice")
    assert (output / LOCK_FILE).exists()
    holder.kill()
    holder.communicate()
    with sole_use(LocalStorage(output)):
        assert (output / LOCK_FILE).exists()
    assert list(output.iterdir()) == []


def test_an_output_is_free_again_after_an_error_and_its_content_stays(tmp_path: Path) -> None:
    (tmp_path / "part").write_text("x")
    with pytest.raises(ZeroDivisionError), sole_use(LocalStorage(tmp_path)):
        raise ZeroDivisionError
    assert [path.name for path in tmp_path.iterdir()] == ["part"]


@pytest.mark.parametrize("names", [["notes.txt"], ["part.parquet", "_SUCCESS"], [LOCK_FILE, "x"]])
def test_a_directory_of_something_else_is_refused_and_not_touched(
    tmp_path: Path, names: list[str]
) -> None:
    for name in names:
        (tmp_path / name).write_text("mine")
    for overwrite in (False, True):
        with (
            pytest.raises(UserError, match="was not made by this command"),
            opened(output(tmp_path), overwrite=overwrite),
        ):
            pytest.fail("opened what is not ours")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == dict.fromkeys(
        names, "mine"
    )


@pytest.mark.parametrize("names", [[], [LOCK_FILE], ["_manifest.json", "x"]])
def test_a_new_output_and_one_of_ours_are_taken(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        (tmp_path / name).write_text("")
    check_kind(LocalStorage(tmp_path), marks=("_manifest.json",))
    check_kind(LocalStorage(tmp_path / "absent"), marks=("_manifest.json",))
    assert len(list(tmp_path.iterdir())) == len(names)


def test_a_changed_command_is_refused_with_what_differs(tmp_path: Path) -> None:
    identity = flat({"model": {"cell": "lstm", "pooling": ("max", "last")}, "seed": 3})
    record_identity(tmp_path / "run.json", identity)
    recorded = read_identity(tmp_path / "run.json")
    assert recorded == identity
    check_same(LocalStorage(tmp_path), recorded, identity)
    with pytest.raises(UserError, match=r"model\.cell was 'lstm', is 'gru'") as raised:
        check_same(LocalStorage(tmp_path), recorded, identity | {"model.cell": "gru"})
    assert "seed" not in str(raised.value)


def test_an_output_that_cannot_be_made_is_said_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    with (
        pytest.raises(RunError, match=r"file/out cannot be written"),
        sole_use(LocalStorage(tmp_path / "file/out")),
    ):
        pytest.fail("held what is not there")


def test_a_command_starts_anew_carries_on_has_nothing_to_do_or_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "out"
    assert state_of(path) is State.NEW
    assert state_of(path) is State.RESUMED
    (path / DONE).touch()
    assert state_of(path) is State.FINISHED
    with pytest.raises(UserError, match="seed was 1, is 2"):
        state_of(path, seed=2)
    assert state_of(path) is State.FINISHED, "a refused command changes nothing"
    assert state_of(path, seed=2, overwrite=True) is State.NEW
    assert not (path / DONE).exists()


@pytest.mark.parametrize("error", [UserError("bad data"), RunError("no memory")])
def test_what_a_command_began_anew_goes_with_a_user_error_and_nothing_else_does(
    tmp_path: Path, error: Exception
) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    state_of(old)
    for path in (new, old):
        with pytest.raises(type(error)), opened(output(path), overwrite=False):
            raise error
    assert new.exists() == isinstance(error, RunError)
    assert (old / RUN).exists()


def test_an_output_that_is_replaced_at_its_end_keeps_what_it_holds_until_then(
    tmp_path: Path,
) -> None:
    state_of(tmp_path / "out")
    (tmp_path / "out" / DONE).write_text("old")
    replaced = output(tmp_path / "out", 2, is_replaced_at_end=True)
    for error in (RunError("no memory"), UserError("bad data")):
        with pytest.raises(type(error)), opened(replaced, overwrite=True):
            raise error
        assert (tmp_path / "out" / DONE).read_text() == "old"


KILLED_WHILE_EMPTYING = """
import os, shutil, signal, sys
from pathlib import Path
from distlstm.stages.run import output as module
from tests.stages.run.test_output import output

removed = []
def kill(self, missing_ok=False):
    removed.append(self)
    if len(removed) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)
    if self.exists() or not missing_ok:
        os.unlink(self)
Path.unlink = kill
with module.opened(output(Path(sys.argv[1]), seed=2), overwrite=True):
    pass
"""


@pytest.mark.parametrize("files_removed", [1, 2, 3])
def test_what_a_killed_overwrite_left_never_passes_for_an_output(
    tmp_path: Path, files_removed: int
) -> None:
    path = tmp_path / "out"
    state_of(path)
    for name in (DONE, "weights"):
        (path / name).touch()
    command = [sys.executable, "-c", KILLED_WHILE_EMPTYING, str(path), str(files_removed)]
    assert subprocess.run(command, check=False).returncode == -9
    assert state_of(path, seed=3) is State.NEW, "whichever command comes next"
    assert {entry.name for entry in path.iterdir()} == {RUN}


def test_a_directory_of_the_users_and_a_link_are_emptied_again_and_stay(tmp_path: Path) -> None:
    mine, link = tmp_path / "mine", tmp_path / "link"
    mine.mkdir()
    link.symlink_to(mine)
    for path in (mine, link):
        with pytest.raises(UserError), opened(output(path), overwrite=False):
            raise UserError("bad data")
        assert list(mine.iterdir()) == []
    assert link.is_symlink()


def test_what_a_killed_command_only_began_to_write_is_nothing(tmp_path: Path) -> None:
    for name in (".tmp-0a1b", "checkpoints/.tmp-2c3d", LOCK_FILE):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("half")
    assert state_of(tmp_path) is State.NEW


def test_a_lock_that_is_another_commands_by_now_stays(tmp_path: Path) -> None:
    path = tmp_path / "out"
    with sole_use(LocalStorage(path)):
        (path / LOCK_FILE).unlink()
        (path / LOCK_FILE).write_text("of another command")
    assert (path / LOCK_FILE).read_text() == "of another command"
