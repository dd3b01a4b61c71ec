"""Looks for data files and tables under a path or glob of one file system."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import PurePosixPath

import pyarrow.fs as pafs

from distlstm.data.formats import SUPPORTED, format_by_content, format_by_name
from distlstm.data.lakehouse import (
    TABLE_DIRECTORIES,
    TABLE_NAMES,
    TableKind,
    table_kind,
    table_roots,
)
from distlstm.errors import UserError
from distlstm.reader_options import ReaderOptions

WILDCARD = re.compile(r"[*?\[]")
_NAMED = 3
"""Files passed over that a note names."""


@dataclass(frozen=True)
class Found:
    """A data file and its format."""

    info: pafs.FileInfo
    format: str


@dataclass(frozen=True)
class Search:
    """Looks for data files and tables on one file system."""

    filesystem: pafs.FileSystem
    reader: ReaderOptions
    passed_over: list[str] = field(default_factory=list)
    """Names of files that are not read."""
    tables: dict[str, TableKind] = field(default_factory=dict)
    """The directories that are tables."""

    def list(self, path: str) -> tuple[str, list[Found]]:
        """The directory at which relative paths start, and the data files under `path`."""
        info = self.filesystem.get_file_info(path)
        if info.type == pafs.FileType.File:
            kind = self._format(path)
            if kind is None:
                raise UserError(
                    f"Cannot tell the format of {path} from its suffix or content. Supported: "
                    f"{SUPPORTED}. If it has one of these formats, name it with --input-format."
                )
            return str(PurePosixPath(path).parent), [Found(info, kind)]
        if info.type == pafs.FileType.Directory:
            return path, [*self._walk(path)]
        if info.type == pafs.FileType.Unknown:
            raise UserError(f"{path} is neither a file nor a directory; write it to a file first.")
        if not WILDCARD.search(path):
            raise UserError(f"{path} does not exist.")
        parts = PurePosixPath(path).parts
        first = next(i for i, part in enumerate(parts) if WILDCARD.search(part))
        root = str(PurePosixPath(*parts[:first]))
        return root, [*self._glob(root, parts[first:])]

    def refuse_inside_table(self, path: str) -> None:
        """Raise a UserError if a path or glob leads into the directory of a table."""
        parts = PurePosixPath(path).parts
        first = next((i for i, part in enumerate(parts) if WILDCARD.search(part)), len(parts) - 1)
        for end in range(1, first + 1):
            directory = str(PurePosixPath(*parts[:end]))
            with suppress(OSError, ValueError):  # such as one that the user may not list
                self._refuse_table(directory)

    def _refuse_table(self, directory: str) -> None:
        names = [f"{directory}/{name}" for name in TABLE_DIRECTORIES]
        kind = table_kind(self.filesystem, self.filesystem.get_file_info(names))
        if kind is not None:
            raise UserError(
                f"{directory} is {TABLE_NAMES[kind]}, and not all of its files are current. Give "
                "this directory as the input, and it is read as a table."
            )

    def passed_over_below(self, source: str) -> str:
        """A sentence about the files that were passed over; empty if there are none."""
        count, names = len(self.passed_over), sorted(self.passed_over)[:_NAMED]
        if not count:
            return ""
        names += ["and others"] if count > _NAMED else []
        return (
            f"Passed over {count:,} file{'s' if count > 1 else ''} in {source}, hidden or of an "
            f"unknown format: {', '.join(names)}. "
        )

    def _format(self, path: str) -> str | None:
        return (
            self.reader.format or format_by_name(path) or format_by_content(self.filesystem, path)
        )

    def _data_file(self, info: pafs.FileInfo) -> Iterator[Found]:
        """The file, if it is one of data."""
        hidden = is_hidden(info.base_name)
        if hidden and format_by_name(info.path) is None:
            return  # such as _SUCCESS and .DS_Store
        kind = None if hidden else self._format(info.path)
        if kind is None:
            self.passed_over.append(info.base_name)
        else:
            yield Found(info, kind)

    def _glob(self, root: str, patterns: Sequence[str]) -> Iterator[Found]:
        """The data files that match, and those under the directories that do."""
        self._refuse_table(root)
        if patterns[0] == "**":
            yield from self._walk(root, patterns)
            return
        for info in self._children(root):
            if is_hidden(info.base_name) or not fnmatchcase(info.base_name, patterns[0]):
                continue
            if info.type == pafs.FileType.File:
                if len(patterns) == 1:
                    yield from self._data_file(info)
            elif len(patterns) > 1:
                yield from self._glob(info.path, patterns[1:])
            else:
                yield from self._walk(info.path)

    def _walk(self, root: str, patterns: Sequence[str] = ("**",)) -> Iterator[Found]:
        """The data files under a directory that match; tables are added to `tables`."""
        before = set(self.tables)
        for info in self._files(root):
            if matches_above(path_below(root, info.path).parts, patterns):
                yield from self._data_file(info)
        for directory in self.tables.keys() - before:
            if tuple(patterns) != ("**",) and not matches_above(
                path_below(root, directory).parts, patterns
            ):
                self._leave_out(directory, root, patterns)

    def _leave_out(self, directory: str, root: str, patterns: Sequence[str]) -> None:
        """Forget a table that does not match; refuse it if one of its files does."""
        selector = pafs.FileSelector(directory, recursive=True)
        for info in self.filesystem.get_file_info(selector):
            if matches_above(path_below(root, info.path).parts, patterns):
                self._refuse_table(directory)
        del self.tables[directory]

    def _files(self, root: str, above: tuple[str, ...] = ()) -> Iterator[pafs.FileInfo]:
        """All files outside of tables; of these, the directories are added to `tables`.

        Hidden directories, and links to a directory above, are not entered.
        """
        if not isinstance(self.filesystem, pafs.LocalFileSystem):  # no links: one call lists all
            yield from self._all_files(root)
            return
        above, children = (*above, real_path(root)), self._children(root)
        kind = table_kind(self.filesystem, children)
        if kind is not None:
            self.tables[root] = kind
            return
        for info in children:
            if info.type == pafs.FileType.File:
                yield info
            elif not is_hidden(info.base_name) and real_path(info.path) not in above:
                yield from self._files(info.path, above)

    def _all_files(self, root: str) -> Iterator[pafs.FileInfo]:
        selector = pafs.FileSelector(root, recursive=True, allow_not_found=True)
        found = [
            info
            for info in self.filesystem.get_file_info(selector)
            if info.type == pafs.FileType.File
        ]
        tables = table_roots(found)
        for directory, kind in tables.items():
            if not any(map(is_hidden, path_below(root, directory).parts)):
                self.tables[directory] = kind
        for info in found:
            hidden = any(map(is_hidden, path_below(root, info.path).parts[:-1]))
            if not hidden and tables.keys().isdisjoint(map(str, PurePosixPath(info.path).parents)):
                yield info

    def _children(self, root: str) -> Sequence[pafs.FileInfo]:
        found = self.filesystem.get_file_info(pafs.FileSelector(root, allow_not_found=True))
        return tuple(found)


def matches_above(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a path, or a directory that it lies in, matches a glob."""
    return any(_matches(parts[: end + 1], patterns) for end in range(len(parts)))


def _matches(parts: Sequence[str], patterns: Sequence[str]) -> bool:
    """Whether a path matches a glob; `**` matches any number of directories, also none."""
    if not patterns:
        return not parts
    if patterns[0] == "**":
        return any(_matches(parts[skipped:], patterns[1:]) for skipped in range(len(parts) + 1))
    return (
        len(parts) > 0 and fnmatchcase(parts[0], patterns[0]) and _matches(parts[1:], patterns[1:])
    )


def path_below(root: str, path: str) -> PurePosixPath:
    """A path relative to a directory above it."""
    return PurePosixPath(path).relative_to(root)


def is_hidden(name: str) -> bool:
    """Whether readers skip files and directories of this name."""
    return name.startswith(("_", ".")) and "=" not in name


def real_path(path: str) -> str:
    """A local path without symbolic links; a URI as it is."""
    return path if "://" in path else os.path.realpath(path)
