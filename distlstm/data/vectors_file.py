"""The file of pretrained vectors in `text.vectors`, on any file system that pyarrow supports."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.fs as pafs

from distlstm.config import TextConfig
from distlstm.data.files import absolute
from distlstm.data.filesystem import open_filesystem
from distlstm.errors import UserError
from distlstm.text.vectors import VectorLines, match_vectors
from distlstm.text.vocabulary import UNKNOWN_ID, Vocabulary

_BUFFER_BYTES = 2**20
_IN_NO_FILE = " "  # words end at the first space, so no file has this one


@dataclass(frozen=True, kw_only=True)
class VectorsFile:
    """A file of vectors, with its metadata: a changed file compares unequal."""

    path: str
    """Absolute path, or a URI."""
    size: int
    """Bytes."""
    modified: int
    """Time of the last change, in nanoseconds."""

    @classmethod
    def find(cls, source: str) -> "VectorsFile":
        """Find a file by path or URI.

        Raises:
            UserError: it does not exist, or is not a file.
        """
        path = absolute(source)
        filesystem, inner = open_filesystem(path)
        info = filesystem.get_file_info(inner)
        if info.type != pafs.FileType.File:
            raise UserError(f"text.vectors: {path} is not a file.")
        return cls(path=path, size=info.size, modified=info.mtime_ns or 0)

    def dimension(self) -> int:
        """The dimension of the vectors, from the first lines of the file.

        Raises:
            UserError: the file has no supported format.
        """
        with self._open() as vectors:
            return vectors.dimension

    def match(self, vocabulary: Vocabulary, config: TextConfig) -> np.ndarray:
        """The vectors of a vocabulary of this config, float32 [V, D]; NaN where there is none.

        Only these are in memory, however large the file is.

        Raises:
            UserError: the file is damaged.
        """
        with self._open() as vectors:
            tokens = vocabulary.tokens.to_pylist()
            tokens[: UNKNOWN_ID + 1] = [_IN_NO_FILE] * (UNKNOWN_ID + 1)
            return match_vectors(vectors, tokens, config)

    @contextmanager
    def _open(self) -> Iterator[VectorLines]:
        filesystem, inner = open_filesystem(self.path)
        try:  # decompresses according to the suffix of the name
            stream = filesystem.open_input_stream(inner)
        except (OSError, pa.ArrowException) as error:
            raise UserError(f"Cannot read {self.path}: {error}.") from error
        with stream, io.BufferedReader(stream, _BUFFER_BYTES) as file:
            yield VectorLines.of(file, name=self.path)
