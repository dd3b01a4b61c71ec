"""Directories that commands read and write: local ones, and those in an object store.

`storage_at` opens one by its path or URI. What is written appears whole or not at all.
"""

from pathlib import Path

from distlstm.regular_file import read_regular
from distlstm.storage.base import Entry, Storage, UnreachableError, Version
from distlstm.storage.cache import local_copy
from distlstm.storage.lease import Lease
from distlstm.storage.local import LocalStorage
from distlstm.storage.location import OBJECT_SCHEMES, is_object_uri, local_path, parse_uri
from distlstm.storage.object_store import ObjectStorage
from distlstm.storage.working_copy import WorkingCopy

Directory = LocalStorage | ObjectStorage

__all__ = [
    "OBJECT_SCHEMES",
    "Directory",
    "Entry",
    "Lease",
    "LocalStorage",
    "ObjectStorage",
    "Storage",
    "UnreachableError",
    "Version",
    "WorkingCopy",
    "is_object_uri",
    "local_copy",
    "local_path",
    "parse_uri",
    "read_at",
    "storage_at",
]


def storage_at(location: str | Path) -> Directory:
    """The directory at a local path, or at a URI: `file://`, `s3://`, `gs://` or `az://`.

    Nothing is read or connected to.

    Raises:
        UserError: the URI has another scheme, no bucket, or credentials in it.
    """
    path = local_path(location)
    if path is not None:
        return LocalStorage(path)
    uri = parse_uri(str(location))
    return ObjectStorage(scheme=uri.scheme, bucket=uri.bucket, directory=uri.key)


def read_at(location: str | Path) -> bytes:
    """The content of a file at a path or URI.

    Raises:
        UserError: see `storage_at`.
        OSError: it does not exist, or cannot be read.
    """
    path = local_path(location)
    if path is not None:
        return read_regular(path)
    uri = parse_uri(str(location))
    directory, _, name = uri.key.rpartition("/")
    return ObjectStorage(scheme=uri.scheme, bucket=uri.bucket, directory=directory).read(name)
