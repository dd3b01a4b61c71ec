"""Copies of what is in an object store: fetched once, whole, and not more than allowed."""

import json
import os
import re
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from distlstm.errors import RunError, UserError
from distlstm.model.directory import save_model
from distlstm.stages.run.models import metadata_of
from distlstm.storage import (
    Directory,
    LocalStorage,
    ObjectStorage,
    WorkingCopy,
    cache,
    local_copy,
    storage_at,
)
from tests.object_store import SCHEMES, ObjectStore, running_stores, store_of
from tests.stages.small_model import model

FETCH_AND_EXIT = """
import sys
from distlstm.storage import local_copy, storage_at
print(local_copy(storage_at(sys.argv[1]), ["data"], key=sys.argv[2]))
"""


@pytest.fixture(scope="module")
def stores() -> Iterator[dict[str, ObjectStore]]:
    with running_stores() as stores:
        yield stores


@pytest.fixture(params=SCHEMES)
def store(request: pytest.FixtureRequest, stores: dict[str, ObjectStore]) -> ObjectStore:
    return store_of(stores, request.param)


@pytest.fixture
def remote(store: ObjectStore) -> Directory:
    return storage_at(f"{store.scheme}://bucket/{uuid.uuid4().hex}")


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of a test."""
    monkeypatch.setenv("DISTLSTM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def fetched_elsewhere(remote: Directory, key: str) -> Path:
    """The path of a copy that a process fetched which has ended."""
    command = [sys.executable, "-c", FETCH_AND_EXIT, remote.location, key]
    return Path(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())


def test_a_local_directory_is_its_own_copy(tmp_path: Path) -> None:
    assert local_copy(LocalStorage(tmp_path), ["absent"], key="k") == tmp_path


def test_a_copy_is_fetched_once(remote: Directory) -> None:
    remote.write("a/b", "content")
    copy = local_copy(remote, ["a/b"], key="once")
    assert (copy / "a/b").read_text() == "content"
    remote.delete_all()
    assert local_copy(remote, ["a/b"], key="once") == copy


def test_many_at_once_get_one_whole_copy(
    remote: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.write("data", "x" * 100_000)
    fetches = []
    fetch = type(remote).fetch
    monkeypatch.setattr(
        type(remote), "fetch", lambda self, *args: (fetches.append(args), fetch(self, *args))
    )
    sizes = []

    def read() -> None:
        cache._used.clear()  # as other processes, which do not know of it yet
        sizes.append((local_copy(remote, ["data"], key="many") / "data").stat().st_size)

    threads = [threading.Thread(target=read) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sizes == [100_000] * 6
    assert len(fetches) == 1


def test_what_a_killed_process_had_begun_is_fetched_again(
    remote: Directory, directory: Path
) -> None:
    remote.write("data", "whole")
    (directory / "begun").mkdir(parents=True)
    (directory / "begun" / "data").write_text("who")
    assert (local_copy(remote, ["data"], key="begun") / "data").read_text() == "whole"


def test_a_damaged_copy_is_not_kept(remote: Directory) -> None:
    remote.write("data", "damaged")

    def check(copy: Path) -> None:
        if (copy / "data").read_text() != "right":
            raise UserError("the model is damaged")

    with pytest.raises(UserError, match="damaged"):
        local_copy(remote, ["data"], key="checked", check=check)
    remote.write("data", "right")
    copy = local_copy(remote, ["data"], key="checked", check=check)
    assert (copy / "data").read_text() == "right"


def test_a_model_with_a_file_that_is_too_large_is_refused_before_it_is_fetched(
    remote: Directory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "model"
    save_model(model(), directory)
    metadata = json.loads((directory / "model.json").read_text())
    weights = (directory / "model.safetensors").read_bytes() + b"\0" * 2**21
    metadata["files"]["model.safetensors"]["bytes"] = len(weights)
    remote.write("model.json", json.dumps(metadata))
    remote.write("vocabulary.txt", (directory / "vocabulary.txt").read_bytes())
    remote.write("model.safetensors", weights)

    def refuse(*_: object) -> None:
        raise AssertionError("a file was fetched")

    monkeypatch.setattr(ObjectStorage, "fetch", refuse)
    with pytest.raises(UserError, match=rf"{remote.location} is damaged: .* is too large"):
        metadata_of(remote)
    metadata["format_version"] = 0
    remote.write("model.json", json.dumps(metadata))
    with pytest.raises(UserError, match=f"{remote.location} has format version 0"):
        metadata_of(remote)
    remote.write("model.json", "{")
    with pytest.raises(UserError, match=rf"{remote.location} is damaged: model\.json: "):
        metadata_of(remote)


def test_the_longest_unused_copies_are_deleted_when_all_are_too_large(
    remote: Directory, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.write("data", "x" * 1_000)
    for age, key in enumerate(["new", "middle", "old"]):
        copy = fetched_elsewhere(remote, key)
        os.utime(copy / "_complete", (1e9 - age, 1e9 - age))
    used = local_copy(remote, ["data"], key="old")  # this process uses it from here on
    monkeypatch.setenv("DISTLSTM_CACHE_BYTES", "2500")
    local_copy(remote, ["data"], key="newest")
    assert {copy.name for copy in directory.glob("*/") if copy.is_dir()} == {"newest", "old"}
    assert (used / "data").exists()


def test_a_cache_that_cannot_be_written_is_said_in_one_sentence(
    remote: Directory, directory: Path
) -> None:
    directory.write_text("a file")
    with pytest.raises(RunError, match="Set DISTLSTM_CACHE to another directory"):
        local_copy(remote, ["data"], key="k")


def test_a_file_that_is_missing_in_the_store_is_no_fault_of_the_cache(remote: Directory) -> None:
    with pytest.raises(FileNotFoundError, match=re.escape(remote.location)):
        local_copy(remote, ["absent"], key="k")


def test_a_size_that_is_no_number_is_refused(
    remote: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISTLSTM_CACHE_BYTES", "20 GB")
    with pytest.raises(UserError, match="DISTLSTM_CACHE_BYTES is '20 GB'"):
        local_copy(remote, ["data"], key="k")


def test_a_working_copy_writes_what_has_changed_and_what_completes_it_last(
    remote: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    write_file = type(remote).write_file
    monkeypatch.setattr(
        type(remote),
        "write_file",
        lambda self, name, file: (written.append(name), write_file(self, name, file)),
    )
    copy = WorkingCopy(remote, last=["study.json", "model.json"])
    for name in ("study.json", "a.db", "best/model.json", "best/weights", "a.db-journal", ".tmp-x"):
        (copy.path / name).parent.mkdir(exist_ok=True)
        (copy.path / name).write_text(name)
    copy.publish()
    assert written == ["best/weights", "a.db", "best/model.json", "study.json"]
    (copy.path / "a.db").write_text("changed")
    copy.publish()
    assert written[4:] == ["a.db"]
    copy.delete("best")
    assert sorted(entry.name for entry in remote.list()) == ["a.db", "study.json"]
    copy.close()
    assert not copy.path.exists()


def test_a_working_copy_fetches_files_and_directories_that_exist(remote: Directory) -> None:
    for name in ("study.json", "best/model.json", "best/weights", "ray/1/checkpoint"):
        remote.write(name, name)
    copy = WorkingCopy(remote, last=())
    copy.fetch(["study.json", "absent.json", "best/", "missing/"])
    found = sorted(str(f.relative_to(copy.path)) for f in copy.path.rglob("*") if f.is_file())
    assert found == ["best/model.json", "best/weights", "study.json"]
    remote.delete_all()
    copy.publish()
    assert remote.is_empty(), "what was fetched has not changed"
    copy.close()


def test_the_working_copy_of_a_local_output_is_the_output(tmp_path: Path) -> None:
    copy = WorkingCopy(LocalStorage(tmp_path), last=())
    assert copy.path == tmp_path
    (tmp_path / "file").touch()
    copy.publish()
    copy.close()
    assert (tmp_path / "file").exists()
