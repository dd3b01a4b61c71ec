"""The file system of a path or URI."""

import pyarrow as pa
import pyarrow.fs as pafs

from distlstm.errors import UserError

_HUB = "hf://"


def open_filesystem(path: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a path or URI, and the path within it.

    Raises:
        UserError: the URI's scheme is unknown, or its file system cannot be reached.
    """
    if "://" not in path:
        return pafs.LocalFileSystem(), path
    try:
        filesystem, inner = pafs.FileSystem.from_uri(path)
    except ImportError as error:  # Arrow takes the Hub's file system from its client
        raise UserError(f"To read {path}: pip install 'distlstm[hf]'") from error
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"Cannot open {path}: {error}") from error
    return filesystem, inner
