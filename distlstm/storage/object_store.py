"""A directory in an object store: objects whose keys begin with its path."""

import hashlib
import tempfile
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from distlstm.atomic import replace_file
from distlstm.storage.base import Entry, Version, to_bytes
from distlstm.storage.connection import connection
from distlstm.storage.faults import BrokenOffError, retried
from distlstm.storage.location import checked_name

Result = TypeVar("Result")
_SECOND = 1_000_000_000
_CHUNK_BYTES = 16 * 2**20
_MAX_CHUNKS = 9_000  # S3 allows 10,000
_UPLOADS = 4  # chunks at a time
_PAGE = 1_000


@dataclass(frozen=True, kw_only=True)
class ObjectStorage:
    """See `Storage`. Only its location is sent to other processes: each makes its connection."""

    scheme: str
    bucket: str
    directory: str
    """Path in the bucket; empty for the whole bucket."""

    @property
    def is_local(self) -> bool:
        """Whether it is a directory of this machine."""
        return False

    @property
    def location(self) -> str:
        """URI without a final slash."""
        below = f"/{quote(self.directory, safe='/=')}" if self.directory else ""
        return f"{self.scheme}://{self.bucket}{below}"

    def at(self, name: str) -> str:
        """URI of a file."""
        return f"{self.location}/{quote(name, safe='/=')}"

    def below(self, name: str) -> "ObjectStorage":
        """A subdirectory."""
        return ObjectStorage(scheme=self.scheme, bucket=self.bucket, directory=self._key(name))

    def read(self, name: str) -> bytes:
        """The content of a file; raises FileNotFoundError."""
        import obstore

        key = self._key(name)
        return self._call(name, lambda store: bytes(_whole(obstore.get(store, key))))

    def read_text(self, name: str) -> str:
        """The content of a UTF-8 file; raises FileNotFoundError."""
        return self.read(name).decode()

    def read_range(self, name: str, start: int, end: int) -> bytes:
        """The bytes of a file from `start` to before `end`; raises FileNotFoundError."""
        import obstore

        key = self._key(name)

        def get(store: Any) -> bytes:
            data = bytes(obstore.get_range(store, key, start=start, end=end))
            if len(data) != end - start:
                raise BrokenOffError
            return data

        return self._call(name, get) if end > start else b""

    def entry(self, name: str) -> Entry:
        """What the store knows of a file; raises FileNotFoundError."""
        import obstore

        key = self._key(name)
        return self._entry(self._call(name, lambda store: obstore.head(store, key)))

    def write(self, name: str, data: bytes | str) -> None:
        """Write a file, or replace it: whole or not at all."""
        import obstore

        key, content = self._key(name), to_bytes(data)
        self._call(
            name, lambda store: obstore.put(store, key, content, use_multipart=len(content) > 2**26)
        )

    def write_file(self, name: str, file: Path) -> None:
        """Upload a local file, in several parts if it is large: whole or not at all."""
        import obstore

        key, size = self._key(name), file.stat().st_size
        if size <= _CHUNK_BYTES:
            return self.write(name, file.read_bytes())
        chunk = max(_CHUNK_BYTES, -(-size // _MAX_CHUNKS))
        self._call(
            name,
            lambda store: obstore.put(
                store, key, file, use_multipart=True, chunk_size=chunk, max_concurrency=_UPLOADS
            ),
        )
        return None

    @contextmanager
    def as_file(self, name: str) -> Iterator[Path]:
        """Yield a temporary copy of a file; raises FileNotFoundError."""
        with tempfile.TemporaryDirectory(prefix="distlstm-") as directory:
            self.fetch(name, Path(directory, "file"))
            yield Path(directory, "file")

    @contextmanager
    def replacing(self, name: str) -> Iterator[Path]:
        """Yield a local path, whose file is uploaded when the block ends."""
        with tempfile.TemporaryDirectory(prefix="distlstm-") as directory:
            file = Path(directory, "file")
            yield file
            self.write_file(name, file)

    def fetch(self, name: str, file: Path) -> None:
        """Download a file: whole or not at all; raises FileNotFoundError."""
        import obstore

        key = self._key(name)

        def get(store: Any) -> None:
            found = obstore.get(store, key)
            with replace_file(file) as temporary, temporary.open("wb") as target:
                for chunk in found.stream(min_chunk_size=2**20):
                    target.write(chunk)
                target.flush()
                if target.tell() != found.meta["size"]:
                    raise BrokenOffError

        self._call(name, get)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """All files, or those of one subdirectory, recursively, sorted; 1,000 for each call."""
        import obstore

        last: str | None = None
        root = self._key(prefix) if prefix else self.directory

        def begin(store: Any) -> Any:
            """Listing can only break between pages: it goes on after the last key that came."""
            return iter(obstore.list(store, root or None, offset=last, chunk_size=_PAGE))

        pages = self._call(prefix, begin)
        while True:

            def next_page(store: Any) -> Any:
                nonlocal pages
                try:
                    return next(pages, None)
                except Exception:
                    pages = begin(store)
                    raise

            page = self._call(prefix, next_page)
            if page is None:
                return
            for found in page:
                last = found["path"]
                if not last.endswith("/"):
                    yield self._entry(found)

    def children(self) -> tuple[Sequence[str], Sequence[Entry]]:
        """The names of the subdirectories, and the files, of this directory alone."""
        import obstore

        found = self._call(
            "", lambda store: obstore.list_with_delimiter(store, self.directory or None)
        )
        above = f"{self.directory}/" if self.directory else ""
        directories = [path.removeprefix(above) for path in found["common_prefixes"]]
        return directories, [self._entry(file) for file in found["objects"]]

    def is_empty(self, ignored: Collection[str] = ()) -> bool:
        """Whether there is no file, besides those that are `ignored`."""
        return all(entry.name in ignored for entry in self.list())

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        try:
            self.entry(name)
        except FileNotFoundError:
            return False
        return True

    def remove_unfinished(self) -> None:
        """Nothing to do: unfinished uploads are no files, and the bucket's rules end them."""

    def delete(self, names: Iterable[str]) -> None:
        """Delete files; those that do not exist are passed over."""
        import obstore

        keys = [self._key(name) for name in names]
        for start in range(0, len(keys), _PAGE):
            some = keys[start : start + _PAGE]
            try:
                self._call("", lambda store, some=some: obstore.delete(store, some))  # type: ignore[misc]
            except FileNotFoundError:  # of stores that delete one by one
                for key in some:
                    self._delete_one(key)

    def _delete_one(self, key: str) -> None:
        import obstore

        try:
            self._call("", lambda store: obstore.delete(store, key))
        except FileNotFoundError:
            return

    def delete_below(self, prefix: str) -> None:
        """Delete all files of a subdirectory."""
        self.delete([entry.name for entry in self.list(prefix)])

    def delete_all(self, kept: Collection[str] = ()) -> None:
        """Delete all files, besides those that are `kept`."""
        self.delete([entry.name for entry in self.list() if entry.name not in kept])

    def create(self, name: str, data: bytes | str) -> bool:
        """Write a file if there is none of this name; whether it was written.

        A file with the same content counts as written by this call: see `Storage.create`.
        """
        return self.put_if(name, data, None) is not None

    def replace_if(self, name: str, data: bytes | str, version: Version) -> bool:
        """Replace a file if it still has this version; whether it was replaced.

        As in `create`, the same content counts as written by this call.
        """
        return self.put_if(name, data, version) is not None

    def version(self, name: str) -> Version:
        """The version of a file, for `replace_if`; raises FileNotFoundError."""
        import obstore

        key = self._key(name)
        return _version(self._call(name, lambda store: obstore.head(store, key)))

    def put_if(self, name: str, data: bytes | str, version: Version | None) -> Version | None:
        """The new version of a file, if it had this version (None: if it did not exist)."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        key, content = self._key(name), to_bytes(data)
        mode: Any = "create" if version is None else version
        try:
            return _version(
                self._call(name, lambda store: obstore.put(store, key, content, mode=mode))
            )
        except (AlreadyExistsError, PreconditionError):
            return self._version_if(name, content)
        except FileNotFoundError:
            if version is None:
                raise  # the bucket is missing
            return None

    def _version_if(self, name: str, content: bytes) -> Version | None:
        """The version of a file that has this content: the answer to our request was lost."""
        import obstore

        key = self._key(name)

        def get(store: Any) -> Version | None:
            found = obstore.get(store, key)
            return _version(found.meta) if bytes(_whole(found)) == content else None

        try:
            return self._call(name, get)
        except FileNotFoundError:
            return None

    def _key(self, name: str) -> str:
        return "/".join(filter(None, (self.directory, checked_name(name))))

    def _entry(self, found: Any) -> Entry:
        below = found["path"].removeprefix(f"{self.directory}/" if self.directory else "")
        etag = (found["e_tag"] or "").strip('"')  # Azure's listings have no quotes
        return Entry(
            name=below,
            size=found["size"],
            modified=_modified(found["last_modified"], etag),
            etag=etag or None,
        )

    def _call(self, name: str, work: Callable[[Any], Result]) -> Result:
        store = connection(self.scheme, self.bucket)
        return retried(lambda: work(store), self.at(name) if name else self.location)


def _whole(found: Any) -> Any:
    data = found.bytes()
    if len(data) != found.meta["size"]:
        raise BrokenOffError
    return data


def _version(found: Any) -> Version:
    return {part: found[part] for part in ("e_tag", "version") if found.get(part)}


def _modified(when: datetime, etag: str) -> int:
    """See `Entry.modified`. Only listings have milliseconds."""
    digest = hashlib.sha256(etag.encode()).digest()
    return int(when.timestamp()) * _SECOND + int.from_bytes(digest[:8]) % _SECOND
