"""An object store as a pyarrow file system, for reading data and for Ray's checkpoints."""

import io
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.fs as pafs

from distlstm.storage import Entry, ObjectStorage

_READ_AHEAD = 8 * 2**20
_SMALL = 256 * 2**10


def object_filesystem(scheme: str) -> pafs.FileSystem:
    """The file system of all buckets of a scheme; its paths begin with the bucket."""
    return pafs.PyFileSystem(ObjectFiles(scheme))


class ObjectFiles(pafs.FileSystemHandler):  # type: ignore[misc]
    """Calls of pyarrow, as calls of a storage.

    A directory is there if an object is below it. Making one does nothing: its files make it.
    """

    def __init__(self, scheme: str) -> None:
        self.scheme = scheme

    def __reduce__(self) -> tuple[type["ObjectFiles"], tuple[str]]:
        return ObjectFiles, (self.scheme,)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ObjectFiles) and other.scheme == self.scheme

    def __hash__(self) -> int:
        return hash(self.scheme)

    def _directory(self, path: str) -> ObjectStorage:
        bucket, _, key = path.strip("/").partition("/")
        return ObjectStorage(scheme=self.scheme, bucket=bucket, directory=key)

    def _parent(self, path: str) -> tuple[ObjectStorage, str]:
        """The directory of a file, and its name."""
        above, _, name = path.strip("/").rpartition("/")
        if not above:
            raise IsADirectoryError(f"{self.scheme}://{path} is a bucket")
        return self._directory(above), name

    def get_type_name(self) -> str:
        """As pyarrow asks."""
        return f"distlstm+{self.scheme}"

    def normalize_path(self, path: str) -> str:
        """As pyarrow asks."""
        return path

    def get_file_info(self, paths: Iterable[str]) -> list[pafs.FileInfo]:
        """One object, a directory, or nothing, for each path."""
        return [self._info(path) for path in paths]

    def _info(self, path: str) -> pafs.FileInfo:
        if "/" in path.strip("/"):
            storage, name = self._parent(path)
            try:
                return _file_info(path, storage.entry(name))
            except (FileNotFoundError, ValueError):
                pass  # a directory, or nothing
        if self._directory(path).has_any():
            return pafs.FileInfo(path, pafs.FileType.Directory)
        return pafs.FileInfo(path, pafs.FileType.NotFound)

    def get_file_info_selector(self, selector: pafs.FileSelector) -> list[pafs.FileInfo]:
        """The files and directories of a directory: one sweep, a call for 1,000 of them."""
        root = selector.base_dir.rstrip("/")
        found: dict[str, pafs.FileInfo] = {}
        storage = self._directory(root)
        if not selector.recursive:
            directories, files = storage.children()
            for name in directories:
                found[name] = pafs.FileInfo(f"{root}/{name}", pafs.FileType.Directory)
            found |= {file.name: _file_info(f"{root}/{file.name}", file) for file in files}
        else:
            for file in storage.list():
                for directory in _directories_above(file.name):
                    if directory not in found:
                        path = f"{root}/{directory}"
                        found[directory] = pafs.FileInfo(path, pafs.FileType.Directory)
                found[file.name] = _file_info(f"{root}/{file.name}", file)
        if not found and not selector.allow_not_found:
            raise FileNotFoundError(f"{storage.location} does not exist")
        return list(found.values())

    def open_input_file(self, path: str) -> pa.NativeFile:
        """Random access, with ranged reads."""
        storage, name = self._parent(path)
        return pa.PythonFile(_reader(storage, name), mode="r")

    def open_input_stream(self, path: str) -> pa.NativeFile:
        """As `open_input_file`, read ahead."""
        storage, name = self._parent(path)
        reader = io.BufferedReader(_reader(storage, name), _READ_AHEAD)
        return pa.PythonFile(reader, mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:  # noqa: ARG002
        """A file that appears when it is closed."""
        storage, name = self._parent(path)
        return pa.PythonFile(_Upload(storage, name), mode="w")

    def open_append_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        """Objects cannot grow."""
        raise NotImplementedError(f"{self.scheme}://{path}: objects cannot be appended to")

    def create_dir(self, path: str, recursive: bool) -> None:
        """Nothing to do."""

    def delete_dir(self, path: str) -> None:
        """Delete what is below a directory."""
        self._directory(path).delete_all()

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:  # noqa: ARG002
        """Delete what is below a directory."""
        self._directory(path).delete_all()

    def delete_root_dir_contents(self) -> None:
        """Refused: it would delete all buckets."""
        raise NotImplementedError("buckets are not deleted")

    def delete_file(self, path: str) -> None:
        """Delete one object."""
        storage, name = self._parent(path)
        storage.delete([name])

    def copy_file(self, src: str, dest: str) -> None:
        """Copy one object, through this machine."""
        with tempfile.TemporaryDirectory() as directory:
            storage, name = self._parent(src)
            storage.fetch(name, Path(directory, "copy"))
            storage, name = self._parent(dest)
            storage.write_file(name, Path(directory, "copy"))

    def move(self, src: str, dest: str) -> None:
        """Copy an object or a directory, then delete it: not atomic."""
        if self._info(src).type == pafs.FileType.File:
            self.copy_file(src, dest)
            self.delete_file(src)
            return
        names = [entry.name for entry in self._directory(src).list()]
        for name in names:
            self.copy_file(f"{src}/{name}", f"{dest}/{name}")
        self._directory(src).delete(names)


def _file_info(path: str, entry: Entry) -> pafs.FileInfo:
    return pafs.FileInfo(path, pafs.FileType.File, size=entry.size, mtime_ns=entry.modified)


def _directories_above(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:end]) for end in range(1, len(parts))]


def _reader(storage: ObjectStorage, name: str) -> "_Reader":
    return _Reader(storage, name, storage.entry(name).size)


class _Reader(io.RawIOBase):
    """Reads ranges of an object; small ones are read together."""

    def __init__(self, storage: ObjectStorage, name: str, size: int) -> None:
        self._storage, self._name, self._size = storage, name, size
        self._at, self._start, self._block = 0, 0, b""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def size(self) -> int:
        """Bytes of the object."""
        return self._size

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self.read(-1)

    def read(self, size: int | None = -1) -> bytes:
        end = self._size if size is None or size < 0 else min(self._size, self._at + size)
        begin = self._at - self._start
        if self._at >= end:
            return b""
        if not 0 <= begin <= begin + end - self._at <= len(self._block):
            self._fill(end)
            begin = 0
        data = self._block[begin : begin + end - self._at]
        self._at = end
        return data

    def _fill(self, end: int) -> None:
        """Read from here to `end`; further if that is little."""
        further = min(self._size, max(end, self._at + _SMALL))
        self._block = self._storage.read_range(self._name, self._at, further)
        self._start = self._at


class _Upload(io.RawIOBase):
    """A local file that is uploaded when it is closed."""

    def __init__(self, storage: ObjectStorage, name: str) -> None:
        self._storage, self._name = storage, name
        self._file = tempfile.NamedTemporaryFile()  # noqa: SIM115 (closed in `close`)

    def __del__(self) -> None:
        """What was not closed was not finished: it is not uploaded."""
        self._file.close()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        return self._file.write(data)

    def close(self) -> None:
        if self.closed:
            return
        try:
            self._file.flush()
            self._storage.write_file(self._name, Path(self._file.name))
        finally:
            self._file.close()
            super().close()
