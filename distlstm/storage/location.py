"""Paths and URIs: what they name, and which are refused."""

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from distlstm.errors import UserError

OBJECT_SCHEMES = {"s3": "Amazon S3", "gs": "Google Cloud Storage", "az": "Azure Blob Storage"}
SUPPORTED_LOCATIONS = "a local path, file:///, s3://, gs:// or az://"


@dataclass(frozen=True)
class ObjectUri:
    """The parts of a URI such as `s3://bucket/directory/name`."""

    scheme: str
    bucket: str
    """Bucket, or container in Azure."""
    key: str
    """Path in the bucket, percent-decoded, without slashes around it; empty for the bucket."""


def is_object_uri(location: str) -> bool:
    """Whether a location is a URI of an object store that is supported."""
    return location.partition("://")[0] in OBJECT_SCHEMES and "://" in location


def local_path(location: str | Path) -> Path | None:
    """The absolute path of a local location or `file:///` URI; None for any other URI."""
    text = str(location)
    if text.startswith("file:///"):
        text = unquote(text.removeprefix("file://"))
    elif isinstance(location, str) and "://" in location:
        return None
    return Path(os.path.normpath(Path(text).expanduser().absolute()))


def on_disk(location: str | os.PathLike[str]) -> Path:
    """The path of a location that must be on a disk: a path or a `file:///` URI.

    Raises:
        UserError: it is another URI.
    """
    text = os.fspath(location)
    if "://" not in text:
        return Path(text)
    found = local_path(text)
    if found is None:
        raise UserError(f"{text} is not on a disk. Give a path.")
    return found


def parse_uri(uri: str) -> ObjectUri:
    """The parts of an object store's URI.

    Raises:
        UserError: the scheme is not supported, there is no bucket, or the URI has credentials.
    """
    scheme, _, rest = uri.partition("://")
    bucket, _, key = rest.partition("/")
    if "@" in bucket:
        raise UserError(
            f"{scheme}://...@{bucket.rpartition('@')[2]} has credentials in it, which would be "
            "copied into logs and manifests. Set them as environment variables, and leave them "
            "out of the URI."
        )
    if scheme not in OBJECT_SCHEMES:
        raise UserError(f"{uri} cannot be opened. Supported: {SUPPORTED_LOCATIONS}.")
    if "?" in rest:
        raise UserError(
            f"{uri.partition('?')[0]} is followed by a `?`. Settings are environment variables, "
            "such as AWS_ENDPOINT_URL; in a name, write `%3F`."
        )
    if not bucket:
        raise UserError(f"{uri} names no bucket. Write it as {scheme}://BUCKET/DIRECTORY.")
    parts = [part for part in unquote(key).split("/") if part]
    if ".." in parts or "." in parts:
        raise UserError(f"{uri} has a part `.` or `..`, which object stores do not resolve.")
    return ObjectUri(scheme, bucket, "/".join(parts))


def checked_name(name: str) -> str:
    """A name below a directory.

    Raises:
        ValueError: it leads out of the directory, or has an empty part.
    """
    if not name or {"", ".", ".."} & set(name.split("/")) or PurePosixPath(name).is_absolute():
        raise ValueError(f"{name!r} is no name below a directory")
    return name
