"""Directories that commands read and write: local ones, and those in an object store.

`storage_at` opens one by its path or URI. What is written appears whole or not at all.
"""

from pathlib import Path

from distlstm.storage.base import Entry, Storage, Version
from distlstm.storage.lease import Lease
from distlstm.storage.local import LocalStorage
from distlstm.storage.location import OBJECT_SCHEMES, is_object_uri, local_path, parse_uri
from distlstm.storage.object_store import ObjectStorage

__all__ = [
    "OBJECT_SCHEMES",
    "Entry",
    "Lease",
    "LocalStorage",
    "ObjectStorage",
    "Storage",
    "Version",
    "is_object_uri",
    "local_path",
    "parse_uri",
    "storage_at",
]


def storage_at(location: str | Path) -> LocalStorage | ObjectStorage:
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
