"""Directories that commands read and write, here and in an object store."""

import pickle
import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from distlstm.errors import UserError
from distlstm.storage import LocalStorage, ObjectStorage, storage_at
from tests.faulty_proxy import running_proxy
from tests.object_store import (
    SCHEMES,
    ObjectStore,
    environment_of,
    running_stores,
    store_of,
)

SECRETS = [
    *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"),
    *("GOOGLE_BEARER_TOKEN", "AZURE_STORAGE_ACCOUNT_KEY"),
]


@pytest.fixture(scope="module")
def stores() -> Iterator[dict[str, ObjectStore]]:
    with running_stores() as stores:
        yield stores


@pytest.fixture(params=SCHEMES)
def store(request: pytest.FixtureRequest, stores: dict[str, ObjectStore]) -> ObjectStore:
    return store_of(stores, request.param)


def new_directory(store: ObjectStore) -> ObjectStorage:
    storage = storage_at(f"{store.scheme}://bucket/{uuid.uuid4().hex}/a b=ü%25")
    assert isinstance(storage, ObjectStorage)
    return storage


@pytest.fixture(params=["local", *SCHEMES])
def directory(
    request: pytest.FixtureRequest, stores: dict[str, ObjectStore], tmp_path: Path
) -> LocalStorage | ObjectStorage:
    if request.param == "local":
        return storage_at(tmp_path / "d")
    return new_directory(store_of(stores, request.param))


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
    directory = new_directory(store)
    assert not directory.replace_if("x", "new", {"e_tag": '"none"', "version": "1"})
    directory.write("x", "1")
    version = directory.version("x")
    assert directory.replace_if("x", "2", version)
    assert not directory.replace_if("x", "3", version)
    assert directory.read_text("x") == "2"


def test_a_change_within_a_second_is_seen(store: ObjectStore) -> None:
    directory = new_directory(store)
    directory.write("x", "1")
    (before,) = directory.list()
    assert directory.entry("x") == before
    directory.write("x", "2")
    assert directory.entry("x").modified != before.modified


def test_more_files_than_a_page_are_listed_in_order_and_deleted(store: ObjectStore) -> None:
    directory = new_directory(store)
    names = [f"d={i % 7}/{i:04} ü" for i in range(1_100)]
    with ThreadPoolExecutor(16) as threads:
        list(threads.map(lambda name: directory.write(name, "x"), names))
    listed = [entry.name for entry in directory.list()]
    assert listed == sorted(names)
    assert directory.children()[0] == [f"d={i}" for i in range(7)]
    directory.delete([*names, *(f"missing/{i}" for i in range(3))])
    assert directory.is_empty()


def test_ranges_and_large_files_are_read_as_they_were_written(
    store: ObjectStore, tmp_path: Path
) -> None:
    directory, large = new_directory(store), tmp_path / "large"
    content = uuid.uuid4().bytes * (40 * 2**16)  # 40 MiB, in several parts
    large.write_bytes(content)
    directory.write_file("large", large)
    assert directory.read_range("large", 2**24 - 3, 2**24 + 5) == content[2**24 - 3 : 2**24 + 5]
    assert directory.read_range("large", len(content) - 2, len(content)) == content[-2:]
    directory.fetch("large", tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == content


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
    there = f"{store.scheme}://nosuch/d"
    nowhere = storage_at(there)
    for call in (lambda: nowhere.write("x", "y"), lambda: nowhere.create("x", "y")):
        with pytest.raises(FileNotFoundError, match=f"^{there}/x does not exist") as missing:
            call()
        assert missing.value.__suppress_context__
    with pytest.raises(FileNotFoundError, match=f"^{there} does not exist: there is no such"):
        list(nowhere.list())
    monkeypatch.setattr("distlstm.storage.faults.PATIENCE_SECONDS", 0)
    monkeypatch.setattr("distlstm.storage.connection._RETRIES", {"max_retries": 0})
    with (
        environment_of(store.variables_at("http://127.0.0.1:9")),
        pytest.raises(OSError, match="cannot be reached") as raised,
    ):
        storage_at(f"{store.scheme}://bucket/d").write("x", "y")
    assert "secret" not in str(raised.value)
    assert "key" not in str(raised.value)


def test_a_refused_call_is_told_as_such(store: ObjectStore) -> None:
    wrong = {
        "gs": {"GOOGLE_BEARER_TOKEN": "wrong"},
        "az": {"AZURE_STORAGE_ACCOUNT_KEY": "d3Jvbmc="},
    }
    if store.scheme not in wrong:
        pytest.skip("moto accepts any key")
    with environment_of(store.variables | wrong[store.scheme]):
        directory = new_directory(store)
        for call in (lambda: directory.read("x"), lambda: list(directory.list())):
            with pytest.raises(OSError, match=r"access was denied.* Check the credentials"):
                call()


def test_missing_credentials_are_told_as_such(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    providers = {  # of the machine; nothing answers there
        "gs": {"GCE_METADATA_HOST": "127.0.0.1:9", "GCE_METADATA_IP": "127.0.0.1:9"},
        "az": {"AZURE_MSI_ENDPOINT": "http://127.0.0.1:9"},
        "s3": {"AWS_METADATA_ENDPOINT": "http://127.0.0.1:9", "AWS_EC2_METADATA_DISABLED": "true"},
    }
    given = {name: value for name, value in store.variables.items() if name not in SECRETS}
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setattr("distlstm.storage.faults.PATIENCE_SECONDS", 0)
    monkeypatch.setattr("distlstm.storage.connection._RETRIES", {"max_retries": 0})
    with (
        environment_of(given | providers[store.scheme]),
        pytest.raises(OSError, match="no credentials were found; set them"),
    ):
        new_directory(store).read("x")


def test_an_azure_account_is_asked_for() -> None:
    with (
        environment_of({"AZURE_STORAGE_CONNECTION_STRING": "AccountName=x"}),
        pytest.raises(UserError, match="Set AZURE_STORAGE_ACCOUNT_NAME; connection strings"),
    ):
        storage_at("az://container/d").read("x")


def test_a_faulty_server_is_not_noticed(store: ObjectStore, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(uuid.uuid4().bytes * (40 * 2**16))  # 40 MiB
    with (
        running_proxy(store.port, seed=7) as endpoint,
        environment_of(store.variables_at(endpoint)),
    ):
        directory = new_directory(store)
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
