"""The file system of a path or URI."""

from importlib.util import find_spec

import pyarrow as pa
import pyarrow.fs as pafs

from distlstm.errors import UserError

HUB_SCHEME = "hf://"


def open_filesystem(path: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a path or URI, and the path within it.

    Raises:
        UserError: the URI's scheme is unknown, or its file system cannot be reached.
    """
    if "://" not in path:
        return pafs.LocalFileSystem(), path
    if path.startswith(HUB_SCHEME) and find_spec("huggingface_hub") is None:
        raise UserError(f"To read {path}: pip install 'distlstm[hf]'")
    try:
        filesystem, inner = pafs.FileSystem.from_uri(path)
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"Cannot open {path}: {error}") from error
    return filesystem, inner
