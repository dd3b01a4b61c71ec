"""A labelled corpus: what to encode (`CorpusSpec`), and the result (`EncodedCorpus`)."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from distlstm.config import TextConfig
from distlstm.data.files import (
    OnNote,
    SourceFile,
    digest,
    files_fingerprint,
    find_files,
    snapshots_of,
)
from distlstm.data.labelled import Columns
from distlstm.data.shards import Shards
from distlstm.data.vectors_file import VectorsFile
from distlstm.reader_options import DETECT, ReaderOptions
from distlstm.storage import Directory, local_copy, storage_at
from distlstm.text.labels import LabelSet
from distlstm.text.vocabulary import Vocabulary

METADATA_FILE = "corpus.json"
VOCABULARY_FILE = "vocabulary.txt"
VECTORS_FILE = "vectors.npy"


@dataclass(frozen=True, kw_only=True)
class Inherited:
    """What a corpus inherits from an earlier model, so that vocabulary and labels only grow."""

    path: str
    """Path or URI of the MODEL directory."""
    fingerprint: str
    num_tokens: int
    """Size of its vocabulary, whose ids stay the same."""
    labels: tuple[str, ...]

    @property
    def vocabulary(self) -> Vocabulary:
        """The model's vocabulary, read from its directory."""
        with storage_at(self.path).as_file(VOCABULARY_FILE) as file:
            return Vocabulary.load(file)


@dataclass(frozen=True, kw_only=True)
class CorpusSpec:
    """What to encode, and how."""

    training: tuple[SourceFile, ...]
    validation: tuple[SourceFile, ...]
    """If empty, `validation_fraction` of the training rows are held out, by a hash of the text."""
    columns: Columns
    text: TextConfig
    validation_fraction: float
    vectors: VectorsFile | None = None
    """Pretrained vectors; those of the vocabulary are stored beside it."""
    inherited: Inherited | None = None
    """From the earlier model with which training starts."""

    @classmethod
    def find(
        cls,
        training: Sequence[str],
        validation: Sequence[str],
        *,
        columns: Columns,
        text: TextConfig,
        validation_fraction: float,
        inherited: Inherited | None = None,
        reader: ReaderOptions = DETECT,
        on_note: OnNote,
    ) -> "CorpusSpec":
        """Find the files under paths, directories, globs and URIs.

        Raises:
            UserError: there are none, or a reader option is for files of another format.
        """
        found = [tuple(find_files(s, reader, on_note=on_note)) for s in (training, validation)]
        reader.check_used(file.format for files in found for file in files)
        return cls(
            training=found[0],
            validation=found[1],
            columns=columns,
            text=text,
            validation_fraction=0.0 if validation else validation_fraction,
            vectors=VectorsFile.find(text.vectors) if text.vectors else None,
            inherited=inherited,
        )

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """The files of both splits."""
        return (*self.training, *self.validation)

    @property
    def fingerprint(self) -> str:
        """A digest that changes with any file, column or text setting."""
        return digest(asdict(self))

    @property
    def files_fingerprint(self) -> str:
        """A digest that changes with the path, size or time of any file."""
        return files_fingerprint(self.files)

    @property
    def identity(self) -> dict[str, Any]:
        """The inputs by which one command on an output differs from another, as metadata."""
        metadata = {"data": self.files_fingerprint, "columns": asdict(self.columns)}
        if self.training[0].reader != DETECT:
            metadata["reader"] = self.training[0].reader.given()
        if snapshots := snapshots_of(self.files):
            metadata["snapshots"] = snapshots
        if self.vectors is not None:
            metadata["vectors"] = asdict(self.vectors)
        if self.inherited is not None:
            metadata["init"] = self.inherited.fingerprint
        return metadata


@dataclass(frozen=True, kw_only=True)
class CorpusSummary:
    """Measured figures of an encoded corpus."""

    fingerprint: str
    label_counts: dict[str, int]
    """Training rows of each label."""
    dropped: dict[str, int]
    """Rows left out, by reason."""
    num_training: int
    num_validation: int
    held_out: bool
    """Whether the validation rows were taken from the training data."""
    num_tokens: int
    """Tokens of the training rows."""
    unknown_share: float
    """Share of the training tokens that are not in the vocabulary."""
    truncated_share: float
    """Share of the training rows that are longer than `max_tokens`."""
    num_vectors: int = 0
    """Tokens of the vocabulary that have a pretrained vector."""
    vectors_share: float = 0.0
    """Share of the training tokens that have a pretrained vector."""
    source: str = ""
    """Where the training files are."""


class EncodedCorpus:
    """An encoded corpus: vocabulary, labels, and the shards of both splits.

    The shards of a corpus in an object store are fetched once for each node, and mapped from there.
    """

    def __init__(self, storage: Directory) -> None:
        content = storage.read(METADATA_FILE)
        metadata = json.loads(content)
        self.storage = storage
        self.summary = CorpusSummary(**metadata["summary"])
        self.labels = LabelSet(tuple(metadata["labels"]))
        self.kind: str = metadata["kind"]
        """`single`: each row has one label; `multi`: each row has a set of labels."""
        vectors = [VECTORS_FILE] if self.summary.num_vectors else []
        path = local_copy(
            storage,
            [VOCABULARY_FILE, *vectors, *metadata["training"], *metadata["validation"]],
            key=f"corpus-{hashlib.sha256(content).hexdigest()[:32]}",
        )
        self.vocabulary = Vocabulary.load(path / VOCABULARY_FILE)
        self.training = Shards([path / name for name in metadata["training"]])
        self.validation = Shards([path / name for name in metadata["validation"]])
        self.vectors: np.ndarray | None = None
        """Pretrained vectors by token id, float32 [V, D], memory-mapped; None if there are none.

        Tokens without a vector have NaN.
        """
        if vectors:
            self.vectors = np.load(path / VECTORS_FILE, mmap_mode="r", allow_pickle=False)
