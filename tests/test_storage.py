"""Directories that commands read and write, here and in an object store."""

import pickle
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from distlstm.errors import UserError
from distlstm.storage import LocalStorage, ObjectStorage, storage_at
from tests.faulty_proxy import running_proxy
from tests.object_store import ObjectStore, environment_of, running_store


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    with running_store() as store, environment_of(store.variables):
        yield store


def new_directory() -> ObjectStorage:
    storage = storage_at(f"s3://bucket/{uuid.uuid4().hex}/a b=ü%25")
    assert isinstance(storage, ObjectStorage)
    return storage


@pytest.fixture(params=["local", "s3"])
def directory(
    request: pytest.FixtureRequest, store: ObjectStore, tmp_path: Path
) -> LocalStorage | ObjectStorage:
    return storage_at(tmp_path / "d") if request.param == "local" else new_directory()


Directory = LocalStorage | ObjectStorage


def test_what_is_written_is_read_listed_and_deleted(directory: Directory, tmp_path: Path) -> None:
    directory.write("a.txt", "你")
    directory.write("k=1/b %41.bin", b"")
    (tmp_path / "f").write_bytes(b"123")
    directory.write_file("k=1/x/c", tmp_path / "f")
    listed = {entry.name: entry.size for entry in directory.list()}
    assert listed == {"a.txt": 3, "k=1/b %41.bin": 0, "k=1/x/c": 3}
    assert {e.name for e in directory.list("k=1")} == {"k=1/b %41.bin", "k=1/x/c"}
    assert directory.read_text("a.txt") == "你"
    assert directory.read("k=1/b %41.bin") == b""
    directory.fetch("k=1/x/c", tmp_path / "new" / "g")
    assert (tmp_path / "new" / "g").read_bytes() == b"123"
    assert directory.below("k=1").read("x/c") == b"123"
    directory.delete(["a.txt", "missing"])
    assert not directory.exists("a.txt")
    directory.delete_below("k=1/x")
    assert [entry.name for entry in directory.list()] == ["k=1/b %41.bin"]
    directory.delete_all()
    assert list(directory.list()) == []


def test_a_missing_file_is_a_file_not_found_error(directory: Directory, tmp_path: Path) -> None:
    for read in (directory.read, lambda name: directory.fetch(name, tmp_path / "g")):
        with pytest.raises(FileNotFoundError, match="nothing"):
            read("nothing")
    assert not (tmp_path / "g").exists()


def test_only_one_of_many_creates_a_file(directory: Directory) -> None:
    created = []
    threads = [
        threading.Thread(target=lambda i=i: created.append(directory.create("x", f"{i}")))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(created) == [False] * 7 + [True]


def test_a_file_is_replaced_only_at_the_version_that_was_read(store: ObjectStore) -> None:
    directory = new_directory()
    assert not directory.replace_if("x", "new", {"e_tag": '"none"'})
    directory.write("x", "1")
    version = directory.version("x")
    assert directory.replace_if("x", "2", version)
    assert not directory.replace_if("x", "3", version)
    assert directory.read_text("x") == "2"


def test_a_change_within_a_second_is_seen(store: ObjectStore) -> None:
    directory = new_directory()
    directory.write("x", "1")
    (before,) = directory.list()
    assert directory.entry("x") == before
    directory.write("x", "2")
    assert directory.entry("x").modified != before.modified


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "", "a//b", "."])
def test_no_name_leads_out_of_the_directory(directory: Directory, name: str) -> None:
    for call in (directory.read, directory.below, lambda name: directory.write(name, "")):
        with pytest.raises(ValueError, match="no name"):
            call(name)


def test_equal_locations_are_equal_and_can_be_sent(directory: Directory) -> None:
    assert pickle.loads(pickle.dumps(directory)) == directory == storage_at(directory.location)
    assert b"secret" not in pickle.dumps(directory)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://host/x", "Supported: a local path, file:///, s3://"),
        ("s3://me:word@bucket/x", "credentials"),
        ("s3:///x", "no bucket"),
        ("s3://bucket/a/../b", "part"),
    ],
)
def test_a_uri_that_cannot_be_opened_is_refused(uri: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as raised:
        storage_at(uri)
    assert "word" not in str(raised.value)


def test_a_file_uri_is_a_local_path(tmp_path: Path) -> None:
    assert storage_at(f"file://{tmp_path}/a%20b/") == LocalStorage(tmp_path / "a b")


def test_errors_have_the_uri_and_no_credentials(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"^s3://nosuch/d/x does not exist: there is no such bucket$"
    ) as raised:
        storage_at("s3://nosuch/d").read("x")
    assert raised.value.__suppress_context__
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr("distlstm.storage.faults.PATIENCE_SECONDS", 0)
    monkeypatch.setattr("distlstm.storage.connection._RETRIES", {"max_retries": 0})
    with pytest.raises(OSError, match="cannot be reached") as raised:
        storage_at("s3://bucket/d").write("x", "y")
    assert "key" not in str(raised.value)


def test_a_faulty_server_is_not_noticed(store: ObjectStore, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(uuid.uuid4().bytes * (40 * 2**16))  # 40 MiB
    with (
        running_proxy(store.port, seed=7) as endpoint,
        environment_of(store.variables | {"AWS_ENDPOINT_URL": endpoint}),
    ):
        directory = new_directory()
        for i in range(25):
            directory.write(f"{i:02}", f"content {i}" * 100)
            assert directory.create(f"new/{i:02}", f"{uuid.uuid4()}")
            assert not directory.create(f"new/{i:02}", "other")
            version = directory.version(f"{i:02}")
            assert directory.replace_if(f"{i:02}", f"again {i}" * 1000, version)
            assert directory.read_text(f"{i:02}") == f"again {i}" * 1000
        assert len(list(directory.list())) == 50
        directory.write_file("large", large)
        directory.fetch("large", tmp_path / "copy")
        directory.delete_below("new")
        assert len(list(directory.list())) == 26
    assert (tmp_path / "copy").read_bytes() == large.read_bytes()
