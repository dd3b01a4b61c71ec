"""Directories as Ray Train and Ray Tune take them: a path, and the file system that it is on."""

from pathlib import Path
from typing import Any

import pyarrow.fs as pafs
import ray.train

from distlstm.data.object_filesystem import object_filesystem
from distlstm.storage import Directory, LocalStorage


def run_options(storage: Directory) -> dict[str, Any]:
    """Arguments of a `RunConfig` whose checkpoints go below a directory."""
    return {"storage_path": path_of(storage), "storage_filesystem": filesystem_of(storage)}


def checkpoint_at(storage: Directory) -> ray.train.Checkpoint:
    """The checkpoint that is a directory."""
    return ray.train.Checkpoint(path_of(storage), filesystem_of(storage))


def path_of(storage: Directory) -> str:
    """The path within its file system."""
    if isinstance(storage, LocalStorage):
        return str(storage.path)
    return f"{storage.bucket}/{storage.directory}"


def filesystem_of(storage: Directory) -> pafs.FileSystem | None:
    """None: the disk."""
    return None if isinstance(storage, LocalStorage) else object_filesystem(storage.scheme)


def name_below(storage: Directory, path: str) -> str:
    """The name below a directory of a path that Ray gave: that of a checkpoint."""
    return Path(path).relative_to(path_of(storage)).as_posix()
