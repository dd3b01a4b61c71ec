"""Encodes the texts of a language model once, as `encoding` does the rows of a classifier.

A count fixes the vocabulary, then shards of token ids are written.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from distlstm.config import TextConfig
from distlstm.data.corpus import METADATA_FILE, VOCABULARY_FILE
from distlstm.data.encoding import bundles_of, is_small
from distlstm.data.files import described
from distlstm.data.labelled import (
    counted,
    is_validation,
    merge_counts,
    named,
    of_kind,
    value_counts,
)
from distlstm.data.parallel import Progress, map_items
from distlstm.data.reading import read_batches
from distlstm.data.shards import write_shard
from distlstm.data.text_corpus import EncodedTexts, TextCorpusSpec, TextSummary
from distlstm.data.units import Unit
from distlstm.errors import UserError
from distlstm.json_text import to_json
from distlstm.storage import Directory
from distlstm.text.columns import read_texts
from distlstm.text.normalization import normalized
from distlstm.text.splitting import split
from distlstm.text.tokenizer import TokenIds, Tokenizer, truncate
from distlstm.text.vocabulary import UNKNOWN_ID, Vocabulary

_VALIDATION_FRACTION, _VALIDATION_ROWS = 0.05, 1_000
"""Perplexity is measured on a twentieth of the rows, of a large corpus on about 1,000."""


@dataclass(frozen=True, kw_only=True)
class _Source:
    """Some units, all labelled or all not."""

    name: str
    units: list[Unit]
    held_out_fraction: float

    def read(self, column: str, text: TextConfig) -> Iterator[tuple[pa.Array, dict[str, int]]]:
        """The texts that are not held out, and the number of rows left out, by reason."""
        for unit in self.units:
            for batch in read_batches(
                unit.file, columns=[column], row_groups=unit.row_groups, rows=unit.rows
            ):
                found = named(read_texts, batch.column(0), column, unit)
                texts = found.texts.drop_null()
                dropped = {f"{reason} text": count for reason, count in found.missing.items()}
                if self.held_out_fraction > 0:
                    held_out = is_validation(normalized(texts, text), self.held_out_fraction)
                    texts = texts.filter(pa.array(~held_out))
                yield texts, dropped


def encode_texts(spec: TextCorpusSpec, storage: Directory, *, progress: Progress) -> EncodedTexts:
    """Encode a corpus of texts into a directory, or open it if it is already encoded.

    Raises:
        UserError: unreadable data, or too few texts.
    """
    if not storage.exists(METADATA_FILE):
        _encode(spec, storage, progress)
    return EncodedTexts(storage)


def _encode(spec: TextCorpusSpec, storage: Directory, progress: Progress) -> None:
    spread = not is_small(spec.files)
    sources = [
        _Source(name=f"{kind}-{i:05d}", units=units, held_out_fraction=fraction)
        for kind, files, fraction in (
            ("unlabelled", spec.unlabelled, 0.0),
            ("labelled", spec.labelled, spec.held_out_fraction),
        )
        if files
        for i, units in enumerate(bundles_of(files, spread=spread))
    ]
    progress("counting tokens", 0, len(sources))
    count = partial(_count, column=spec.column, text=spec.text)
    counts = merge_counts(
        pa.concat_tables(map_items(count, sources, spread=spread, merge=merge_counts))
    )
    progress("counting tokens", len(sources), len(sources))
    num_rows = pc.sum(of_kind(counts, "rows")["count"]).as_py() or 0
    if num_rows == 0:
        raise UserError(f"No row has a text in {spec.column!r}. Check the name of this column.")
    vocabulary = Vocabulary.from_counts(of_kind(counts, "token", "token"), spec.text)
    storage.write(VOCABULARY_FILE, vocabulary.to_text())
    encoder = _Encoder(
        storage=storage,
        column=spec.column,
        tokenizer=Tokenizer(spec.text, vocabulary),
        validation_fraction=min(_VALIDATION_FRACTION, _VALIDATION_ROWS / num_rows),
    )
    tables = []
    progress("encoding", 0, len(sources))
    for table in map_items(encoder.write, sources, spread=spread):
        tables.append(table)
        progress("encoding", len(tables), len(sources))
    _write_metadata(storage, spec, counts, pa.concat_tables(tables).sort_by("name"))


def _count(source: _Source, *, column: str, text: TextConfig) -> pa.Table:
    """Count tokens, rows, and rows left out."""
    tables = [counted("rows", [], [])]
    for texts, dropped in source.read(column, text):
        tokens, _ = truncate(split(normalized(texts, text), text), text.max_tokens)
        tables += [
            value_counts("token", tokens.flatten()),
            counted("rows", [""], [len(texts)]),
            counted("dropped", list(dropped), list(dropped.values())),
        ]
    return merge_counts(pa.concat_tables(tables))


@dataclass(frozen=True, kw_only=True)
class _Encoder:
    """Writes the shards of a source; is sent to the workers."""

    storage: Directory
    column: str
    tokenizer: Tokenizer
    validation_fraction: float

    def write(self, source: _Source) -> pa.Table:
        """Encode the source into two shards; return their figures as a table of one row."""
        splits: dict[str, list[TokenIds]] = {"training": [], "validation": []}
        config = self.tokenizer.config
        for texts, _ in source.read(self.column, config):
            tokens = self.tokenizer.encode(texts)
            held_out = is_validation(normalized(texts, config), self.validation_fraction)
            splits["training"].append(tokens.take(~held_out))
            splits["validation"].append(tokens.take(held_out))
        for split_name, pieces in splits.items():
            no_labels = [np.zeros(len(piece.lengths), np.int32) for piece in pieces]
            write_shard(self.storage, f"{source.name}.{split_name}", pieces, no_labels)
        training = splits["training"]
        figures = {
            "name": source.name,
            "training": sum(len(piece.lengths) for piece in training),
            "validation": sum(len(piece.lengths) for piece in splits["validation"]),
            "tokens": sum(len(piece.values) for piece in training),
            "unknown": sum(int((piece.values == UNKNOWN_ID).sum()) for piece in training),
            "truncated": sum(int(piece.truncated.sum()) for piece in training),
        }
        return pa.Table.from_pylist([figures])


def _write_metadata(
    storage: Directory, spec: TextCorpusSpec, counts: pa.Table, written: pa.Table
) -> None:
    total = {name: pc.sum(written[name]).as_py() for name in written.column_names if name != "name"}
    if total["tokens"] < 2 or total["validation"] == 0:
        raise UserError(
            f"Column {spec.column!r} has {total['training'] + total['validation']} texts with "
            f"{total['tokens']} tokens, too few for a language model. Give more rows."
        )
    dropped = of_kind(counts, "dropped").sort_by("key")
    summary = TextSummary(
        fingerprint=spec.fingerprint,
        num_training=total["training"],
        num_validation=total["validation"],
        num_tokens=total["tokens"],
        unknown_share=total["unknown"] / max(1, total["tokens"]),
        truncated_share=total["truncated"] / max(1, total["training"]),
        dropped=dict(zip(dropped["key"].to_pylist(), dropped["count"].to_pylist(), strict=True)),
        source=described(spec.unlabelled),
    )
    names = written["name"].to_pylist()
    shards = {split: [f"{name}.{split}" for name in names] for split in ("training", "validation")}
    storage.write(METADATA_FILE, to_json({"summary": asdict(summary), **shards}, indent=1) + "\n")
