"""The file system of a path or URI."""

from importlib.util import find_spec

import pyarrow as pa
import pyarrow.fs as pafs

from distlstm.data.object_filesystem import object_filesystem
from distlstm.errors import UserError
from distlstm.storage import local_path, parse_uri

HUB_SCHEME = "hf://"


def open_filesystem(path: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a path or URI, and the path within it.

    Raises:
        UserError: the URI's scheme is not supported, or its file system cannot be reached.
    """
    if "://" not in path:
        return pafs.LocalFileSystem(), path
    if not path.startswith(HUB_SCHEME):
        return _opened(path)
    if find_spec("huggingface_hub") is None:
        raise UserError(f"To read {path}: pip install 'distlstm[hf]'")
    try:
        filesystem, inner = pafs.FileSystem.from_uri(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"Cannot open {path}: {error}") from error
    return filesystem, inner


def _opened(uri: str) -> tuple[pafs.FileSystem, str]:
    local = local_path(uri)
    if local is not None:
        return pafs.LocalFileSystem(), str(local)
    parts = parse_uri(uri)
    return object_filesystem(parts.scheme), f"{parts.bucket}/{parts.key}".rstrip("/")
