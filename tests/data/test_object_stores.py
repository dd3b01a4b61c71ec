"""DATA and INPUT in an object store."""

import gzip
import pickle
import uuid
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from distlstm.data.files import find_files, has_changed
from distlstm.data.filesystem import open_filesystem
from distlstm.data.opening import opened
from distlstm.errors import UserError
from distlstm.storage import ObjectStorage, storage_at
from tests.object_store import SCHEMES, ObjectStore, running_stores, store_of


@pytest.fixture(scope="module")
def stores() -> Iterator[dict[str, ObjectStore]]:
    with running_stores() as stores:
        yield stores


@pytest.fixture(params=SCHEMES)
def store(request: pytest.FixtureRequest, stores: dict[str, ObjectStore]) -> ObjectStore:
    return store_of(stores, request.param)


@pytest.fixture
def corpus(store: ObjectStore, tmp_path: Path) -> ObjectStorage:
    """Two Parquet files in Hive partitions, a compressed CSV file, and what readers skip."""
    storage = storage_at(f"{store.scheme}://bucket/{uuid.uuid4().hex}")
    assert isinstance(storage, ObjectStorage)
    pq.write_table(pa.table({"text": [f"text {i}" for i in range(50_000)]}), tmp_path / "a")
    for name in ("lang=zh/a b.parquet", "lang=en/你.parquet"):
        storage.write_file(name, tmp_path / "a")
    storage.write("c.csv.gz", gzip.compress(b"text\nx\n"))
    storage.write("_SUCCESS", "")
    return storage


def relatives(source: str) -> list[str]:
    return [file.relative for file in find_files([source])]


def test_a_directory_a_glob_and_a_file_are_found(corpus: ObjectStorage) -> None:
    here = corpus.location
    both = ["lang=en/你.parquet", "lang=zh/a b.parquet"]
    assert sorted(relatives(here)) == sorted(relatives(f"{here}/")) == ["c.csv.gz", *both]
    assert sorted(relatives(f"{here}/*/*.parquet")) == both
    assert sorted(relatives(f"{here}/**/*.parquet")) == both
    assert relatives(f"{here}/c.csv.gz") == ["c.csv.gz"]
    (file,) = find_files([f"{here}/lang=zh/a%20b.parquet"])
    assert file.path == f"{here}/lang=zh/a%20b.parquet"
    (zh,) = find_files([f"{here}/lang=z*"])
    assert zh.partitions == {"lang": "zh"}


def test_files_are_read_as_local_ones(corpus: ObjectStorage) -> None:
    files = {file.relative: file for file in find_files([corpus.location])}
    with opened(files["lang=zh/a b.parquet"]) as source:
        table = pq.read_table(source)
    assert table.column("text")[49_999].as_py() == "text 49999"
    with opened(files["c.csv.gz"]) as source:
        assert source.read() == b"text\nx\n"


def test_a_changed_object_is_noticed(corpus: ObjectStorage) -> None:
    (file,) = find_files([f"{corpus.location}/*.gz"])
    assert not has_changed(file)
    corpus.write("c.csv.gz", gzip.compress(b"text\ny\n"))
    assert has_changed(file)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("ftp://bucket/x", "Supported"),
        ("s3://bucket/missing", "does not exist"),
        ("s3://nosuch-bucket/x", r"does not exist|no such bucket"),
        ("s3://bucket/missing/*.csv", "No data files"),
        ("s3://bucket/x?region=y", "environment variables"),
        ("s3://me:word@bucket/x", "credentials"),
    ],
)
def test_what_cannot_be_read_is_a_user_error(store: ObjectStore, uri: str, message: str) -> None:
    uri = uri.replace("s3://", f"{store.scheme}://")
    with pytest.raises(UserError, match=message):
        find_files([uri])


def test_the_file_system_writes_moves_and_deletes(corpus: ObjectStorage, tmp_path: Path) -> None:
    filesystem, root = open_filesystem(f"{corpus.location}/new")
    filesystem = pickle.loads(pickle.dumps(filesystem))
    filesystem.create_dir(root)
    with filesystem.open_output_stream(f"{root}/d/x") as stream:
        stream.write(b"123")
        assert not corpus.exists("new/d/x")
    with filesystem.open_output_stream(f"{root}/empty"):
        pass
    assert corpus.read("new/empty") == b""
    filesystem.copy_file(f"{root}/d/x", f"{root}/d/y")
    filesystem.move(f"{root}/d", f"{root}/e")
    found = filesystem.get_file_info(pafs.FileSelector(root, recursive=True))
    assert sorted(info.path.removeprefix(root) for info in found) == [
        "/e",
        "/e/x",
        "/e/y",
        "/empty",
    ]
    pafs.copy_files(f"{root}", str(tmp_path / "copy"), source_filesystem=filesystem)
    assert (tmp_path / "copy/e/y").read_bytes() == b"123"
    filesystem.delete_dir(root)
    assert filesystem.get_file_info(root).type == pafs.FileType.NotFound
