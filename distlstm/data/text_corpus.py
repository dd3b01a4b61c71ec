"""A corpus of texts for a language model: what to encode, and the result."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from distlstm.config import TextConfig
from distlstm.data.corpus import METADATA_FILE, VOCABULARY_FILE
from distlstm.data.files import (
    OnNote,
    SourceFile,
    digest,
    files_fingerprint,
    find_files,
    snapshots_of,
)
from distlstm.data.shards import Shards
from distlstm.reader_options import DETECT, ReaderOptions
from distlstm.storage import Directory, local_copy
from distlstm.text.vocabulary import Vocabulary


@dataclass(frozen=True, kw_only=True)
class TextCorpusSpec:
    """What to encode, and how."""

    unlabelled: tuple[SourceFile, ...]
    column: str
    text: TextConfig
    labelled: tuple[SourceFile, ...] = ()
    """Training data of a classifier, of which the rows held out for its validation are left out."""
    held_out_fraction: float = 0.0
    """Share of these rows, chosen by a hash of the text."""

    @classmethod
    def find(
        cls,
        unlabelled: Sequence[str],
        *,
        column: str,
        text: TextConfig,
        reader: ReaderOptions = DETECT,
        on_note: OnNote,
    ) -> "TextCorpusSpec":
        """Find the files under paths, directories, globs and URIs.

        Raises:
            UserError: there are none, or a reader option is for files of another format.
        """
        files = tuple(find_files(unlabelled, reader, on_note=on_note))
        reader.check_used(file.format for file in files)
        return cls(unlabelled=files, column=column, text=text)

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """All files."""
        return (*self.unlabelled, *self.labelled)

    @property
    def fingerprint(self) -> str:
        """A digest that changes with any file, column or text setting."""
        return digest(asdict(self))

    @property
    def identity(self) -> dict[str, Any]:
        """The inputs by which one command on an output differs from another, as metadata."""
        metadata: dict[str, Any] = {
            "unlabelled": files_fingerprint(self.unlabelled),
            "text_column": self.column,
        }
        if self.unlabelled[0].reader != DETECT:
            metadata["reader"] = self.unlabelled[0].reader.given()
        if snapshots := snapshots_of(self.unlabelled):
            metadata["snapshots"] = snapshots
        return metadata


@dataclass(frozen=True, kw_only=True)
class TextSummary:
    """Measured figures of an encoded corpus of texts."""

    fingerprint: str
    num_training: int
    num_validation: int
    num_tokens: int
    """Tokens of the training rows."""
    unknown_share: float
    """Share of the training tokens that are not in the vocabulary."""
    truncated_share: float
    """Share of the training rows that are longer than `max_tokens`."""
    dropped: dict[str, int]
    """Rows left out, by reason."""
    source: str = ""
    """Where the files without labels are."""


class EncodedTexts:
    """An encoded corpus of texts: a vocabulary, and the shards of training and validation rows."""

    def __init__(self, storage: Directory) -> None:
        content = storage.read(METADATA_FILE)
        metadata = json.loads(content)
        self.storage = storage
        self.summary = TextSummary(**metadata["summary"])
        path = local_copy(
            storage,
            [VOCABULARY_FILE, *metadata["training"], *metadata["validation"]],
            key=f"texts-{hashlib.sha256(content).hexdigest()[:32]}",
        )
        self.vocabulary = Vocabulary.load(path / VOCABULARY_FILE)
        self.training = Shards([path / name for name in metadata["training"]])
        self.validation = Shards([path / name for name in metadata["validation"]])
