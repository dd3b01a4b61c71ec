"""Encodes a corpus once: a count fixes vocabulary and labels, then shards are written.

Both passes run over bundles of units, on the whole cluster if the corpus is large. The first counts
tokens and labels; the workers merge their counts, and this process merges the results. The second
writes token ids. `corpus.json` is written last and lists the shards, so trials and restarts share a
finished encoding and never read an unfinished one.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import ray

from distlstm.data.corpus import (
    METADATA_FILE,
    VECTORS_FILE,
    VOCABULARY_FILE,
    CorpusSpec,
    CorpusSummary,
    EncodedCorpus,
)
from distlstm.data.files import SourceFile, described
from distlstm.data.labelled import (
    Columns,
    LabelledRows,
    count_labelled,
    each_label,
    is_validation,
    merge_counts,
    of_kind,
    read_labelled,
)
from distlstm.data.parallel import Progress, map_items
from distlstm.data.shards import write_shard
from distlstm.data.units import Unit, cut_into_units, group_small, unit_limit
from distlstm.errors import UserError
from distlstm.json_text import to_json
from distlstm.storage import Directory
from distlstm.text.columns import is_label_set
from distlstm.text.labels import UNKNOWN_LABEL, LabelSet, one_hot
from distlstm.text.normalization import normalized
from distlstm.text.tokenizer import TokenIds, Tokenizer
from distlstm.text.vocabulary import UNKNOWN_ID, Vocabulary

_MAX_LABELS = 10_000
_SMALL = 16 * 2**20
"""Bytes on disk that this process encodes in less time than a cluster takes to start."""


def encode_corpus(spec: CorpusSpec, storage: Directory, *, progress: Progress) -> EncodedCorpus:
    """Encode a corpus into a directory, or open it if it is already encoded.

    Raises:
        UserError: unreadable data, no rows, fewer than two labels, nothing to validate on, or
            unusable vectors.
    """
    if not storage.exists(METADATA_FILE):
        _encode(spec, storage, progress)
    return EncodedCorpus(storage)


def _encode(spec: CorpusSpec, storage: Directory, progress: Progress) -> None:
    spread = not is_small(spec.files)
    training, validation = (
        bundles_of(files, spread=spread) for files in (spec.training, spec.validation)
    )
    counts = _count(spec, training, spread, progress)
    labels = _label_set(counts, spec)
    label_sets = bool(_as_dict(counts, "sets"))
    vocabulary = _vocabulary(counts, spec)
    storage.write(VOCABULARY_FILE, vocabulary.to_text())
    coverage = _match_vectors(spec, storage, vocabulary, counts, progress)
    encoder = _Encoder(
        storage=storage,
        columns=spec.columns,
        tokenizer=Tokenizer(spec.text, vocabulary),
        labels=labels,
        label_sets=label_sets,
        validation_fraction=spec.validation_fraction,
        never_held_out=labels.ids_of(pa.array(sorted(_only_held_out(counts, labels)), pa.string())),
    )
    jobs = [*_numbered(training, "training"), *_numbered(validation, "validation")]
    tables = []
    progress("encoding", 0, len(jobs))
    for table in map_items(encoder.write, jobs, spread=spread):
        tables.append(table)
        progress("encoding", len(tables), len(jobs))
    written = pa.concat_tables(tables).sort_by("name")
    _write_metadata(storage, spec, counts, labels, label_sets, written, coverage)


def is_small(files: Iterable[SourceFile]) -> bool:
    """Whether this process can encode these files without a cluster."""
    return sum(file.size for file in files) <= _SMALL


def bundles_of(files: Sequence[SourceFile], *, spread: bool) -> list[list[Unit]]:
    """Units of all files in bundles of similar size; two for each CPU of the cluster, if spread."""
    num_cpus = int(ray.cluster_resources().get("CPU", 1)) if spread else 1
    return group_small(cut_into_units(files, unit_limit(files)), num_groups=2 * num_cpus)


def _count(
    spec: CorpusSpec, bundles: list[list[Unit]], spread: bool, progress: Progress
) -> pa.Table:
    count = partial(
        count_labelled,
        columns=spec.columns,
        text=spec.text,
        validation_fraction=spec.validation_fraction,
    )
    progress("counting tokens", 0, len(bundles))
    counts = merge_counts(
        pa.concat_tables(map_items(count, bundles, spread=spread, merge=merge_counts))
    )
    progress("counting tokens", len(bundles), len(bundles))
    return counts


@dataclass(frozen=True, kw_only=True)
class _Coverage:
    """How much of the vocabulary and of the training text has pretrained vectors."""

    num_vectors: int = 0
    vectors_share: float = 0.0


def _match_vectors(
    spec: CorpusSpec,
    storage: Directory,
    vocabulary: Vocabulary,
    counts: pa.Table,
    progress: Progress,
) -> _Coverage:
    """Write the vectors of the vocabulary beside it; workers and trials map them into memory."""
    if spec.vectors is None:
        return _Coverage()
    progress("reading the vectors", 0, 1)
    vectors = spec.vectors.match(vocabulary, spec.text)
    progress("reading the vectors", 1, 1)
    has_vector = ~np.isnan(vectors[:, 0])
    if not has_vector.any():
        raise UserError(
            f"None of the {len(vocabulary):,} tokens of the vocabulary is in {spec.vectors.path}. "
            "Check that it has the language of the texts, and that text.unit fits its tokens."
        )
    with storage.replacing(VECTORS_FILE) as temporary, temporary.open("wb") as file:
        np.save(file, vectors, allow_pickle=False)
    tokens = of_kind(counts, "token")
    known = vocabulary.ids_of(tokens["key"].combine_chunks()).to_numpy(zero_copy_only=False)
    occurrences = tokens["count"].to_numpy()
    return _Coverage(
        num_vectors=int(has_vector.sum()),
        vectors_share=float(occurrences[has_vector[known]].sum() / max(1, occurrences.sum())),
    )


def _as_dict(counts: pa.Table, kind: str) -> dict[str, int]:
    rows = of_kind(counts, kind).sort_by("key")
    return dict(zip(rows["key"].to_pylist(), rows["count"].to_pylist(), strict=True))


def _by_label(counts: pa.Table, kind: str, labels: LabelSet) -> dict[str, int]:
    """The counts of a kind by label, however its files spell it."""
    totals: Counter[str] = Counter()
    rows = of_kind(counts, kind).sort_by("key")
    ids = labels.ids_of(rows["key"].combine_chunks()).to_pylist()
    for label_id, count in zip(ids, rows["count"].to_pylist(), strict=True):
        totals[labels.names[label_id]] += count
    return dict(totals)


def _only_held_out(counts: pa.Table, labels: LabelSet) -> set[str]:
    """Labels with held-out rows only; these rows move to training, to be learnt."""
    held_out, training = (_by_label(counts, kind, labels) for kind in ("validation", "training"))
    return set(held_out) - set(training)


def _vocabulary(counts: pa.Table, spec: CorpusSpec) -> Vocabulary:
    tokens = of_kind(counts, "token", "token")
    if spec.inherited is None:
        return Vocabulary.from_counts(tokens, spec.text)
    return spec.inherited.vocabulary.grown(tokens, spec.text)


def _label_set(counts: pa.Table, spec: CorpusSpec) -> LabelSet:
    spellings = [name for kind in ("training", "validation") for name in _as_dict(counts, kind)]
    labels = LabelSet.of(spellings)
    training, validation = (_by_label(counts, k, labels) for k in ("training", "validation"))
    sets = _as_dict(counts, "sets")
    num_rows = sum(sets.values()) or sum(training.values()) + sum(validation.values())
    _check_labels(labels, num_rows, spec.columns)
    held_out = sum(validation.values()) - sum(
        validation[name] for name in _only_held_out(counts, labels)
    )
    if not spec.validation and held_out == 0:
        raise UserError(
            f"The validation split has none of the {num_rows} rows. Give --validation DATA, or "
            "hold out more: --set validation_fraction=0.3 "
            f"(now {spec.validation_fraction:g})."
        )
    earlier = () if spec.inherited is None else spec.inherited.labels
    return LabelSet.of(labels.names, kept=earlier)


def _check_labels(labels: LabelSet, num_rows: int, columns: Columns) -> None:
    if num_rows == 0:
        weight = f" and a weight in {columns.weight!r}" if columns.weight else ""
        raise UserError(
            f"No row has a text in {columns.text!r} and a label in {columns.label!r}{weight}. "
            "Check the names of these columns."
        )
    if len(labels) < 2:
        raise UserError(
            f"Column {columns.label!r} has a single label, {labels.names[0]!r}; "
            "a classifier needs at least two."
        )
    if len(labels) > min(_MAX_LABELS, max(20, num_rows / 2)):
        raise UserError(
            f"Column {columns.label!r} has {len(labels)} distinct values in {num_rows} rows, too "
            "many for a label. Choose another column with --label-column."
        )


@dataclass(frozen=True, kw_only=True)
class _Job:
    """Units to encode into a training and a validation shard."""

    name: str
    units: list[Unit]
    validation_only: bool


def _numbered(bundles: list[list[Unit]], split: str) -> list[_Job]:
    return [
        _Job(name=f"{split}-{i:05d}", units=units, validation_only=split == "validation")
        for i, units in enumerate(bundles)
    ]


@dataclass(frozen=True)
class _Rows:
    """Encoded rows of one split, collected until their shard is written."""

    tokens: list[TokenIds] = field(default_factory=list)
    label_ids: list[np.ndarray] = field(default_factory=list)
    weights: list[np.ndarray] = field(default_factory=list)
    soft_targets: list[np.ndarray | None] = field(default_factory=list)

    def append(self, rows: "_EncodedBatch", keep: np.ndarray) -> None:
        self.tokens.append(rows.tokens.take(keep))
        self.label_ids.append(rows.label_ids[keep])
        self.weights.append(rows.weights[keep])
        self.soft_targets.append(None if rows.targets is None else rows.targets[keep])

    def targets(self, num_labels: int) -> list[np.ndarray]:
        """The targets of all batches, one-hot for plain labels; empty if no batch has targets."""
        if all(targets is None for targets in self.soft_targets):
            return []
        return [
            one_hot(label_ids, num_labels) if targets is None else targets
            for label_ids, targets in zip(self.label_ids, self.soft_targets, strict=True)
        ]


@dataclass(frozen=True, kw_only=True)
class _EncodedBatch:
    """Labelled rows as numbers; `targets` [rows, C] for probabilities and label sets only."""

    tokens: TokenIds
    label_ids: np.ndarray
    weights: np.ndarray
    targets: np.ndarray | None


@dataclass(frozen=True, kw_only=True)
class _Encoder:
    """Writes the shards of a job; is sent to the workers."""

    storage: Directory
    columns: Columns
    tokenizer: Tokenizer
    labels: LabelSet
    label_sets: bool
    validation_fraction: float
    never_held_out: pa.Array
    """Ids of the labels whose rows all go to training."""

    def write(self, job: _Job) -> pa.Table:
        """Encode the job's units into two shards; return their figures as a table of one row."""
        training, validation, num_unseen = _Rows(), _Rows(), 0
        columns = self.columns.without_weight() if job.validation_only else self.columns
        for unit in job.units:
            for rows in read_labelled(unit, columns):
                _check_kind(rows, unit, self)
                encoded = self._encode(rows)
                known, held_out = encoded.label_ids != UNKNOWN_LABEL, self._held_out(rows, job)
                training.append(encoded, known & ~held_out)
                validation.append(encoded, known & held_out)
                num_unseen += int((~known).sum())
        for split, kept in (("training", training), ("validation", validation)):
            write_shard(
                self.storage,
                f"{job.name}.{split}",
                kept.tokens,
                kept.label_ids,
                weights=kept.weights if columns.weight else (),
                targets=kept.targets(len(self.labels)),
            )
        return pa.Table.from_pylist([_measure(job, training, validation, num_unseen)])

    def _encode(self, rows: LabelledRows) -> _EncodedBatch:
        tokens, soft = self.tokenizer.encode(rows.texts), rows.soft_labels
        if is_label_set(rows.labels.type):
            none = np.zeros(len(rows.labels), np.int32)
            members = self.labels.members_of(rows.labels)
            return _EncodedBatch(
                tokens=tokens, label_ids=none, weights=rows.weights, targets=members
            )
        return _EncodedBatch(
            tokens=tokens,
            label_ids=self.labels.ids_of(rows.labels).to_numpy(zero_copy_only=False),
            weights=rows.weights,
            targets=None if soft is None else soft.over(self.labels),
        )

    def _held_out(self, rows: LabelledRows, job: _Job) -> np.ndarray:
        if job.validation_only:
            return np.ones(len(rows.labels), bool)
        label_ids = self.labels.ids_of(each_label(rows.labels))
        movable = pc.is_in(label_ids, value_set=self.never_held_out)
        movable = movable.to_numpy(zero_copy_only=False)
        if is_label_set(rows.labels.type):
            row_of = pc.list_parent_indices(rows.labels).to_numpy(zero_copy_only=False)
            movable = np.bincount(row_of[movable], minlength=len(rows.labels)) > 0
        texts = normalized(rows.texts, self.tokenizer.config)
        return np.asarray(is_validation(texts, self.validation_fraction) & ~movable)


def _check_kind(rows: LabelledRows, unit: Unit, encoder: _Encoder) -> None:
    if len(rows.labels) and is_label_set(rows.labels.type) != encoder.label_sets:
        raise UserError(
            f"Column {encoder.columns.label!r} has lists of labels in some files and single labels "
            f"in others, such as {unit.file.path}. Give files of one kind."
        )


def _measure(job: _Job, training: _Rows, validation: _Rows, num_unseen: int) -> dict[str, Any]:
    return {
        "name": job.name,
        "training": sum(map(len, training.label_ids)),
        "validation": sum(map(len, validation.label_ids)),
        "tokens": sum(len(tokens.values) for tokens in training.tokens),
        "unknown": sum(int((tokens.values == UNKNOWN_ID).sum()) for tokens in training.tokens),
        "truncated": sum(int(tokens.truncated.sum()) for tokens in training.tokens),
        "weight": sum(float(weights.sum(dtype=np.float64)) for weights in training.weights),
        "unseen_labels": num_unseen,
    }


def _write_metadata(
    storage: Directory,
    spec: CorpusSpec,
    counts: pa.Table,
    labels: LabelSet,
    label_sets: bool,
    written: pa.Table,
    coverage: _Coverage,
) -> None:
    total = {name: pc.sum(written[name]).as_py() for name in written.column_names if name != "name"}
    if total["weight"] == 0:
        raise UserError(
            f"All training rows have weight 0 in column {spec.columns.weight!r}. "
            "At least one must have a weight above 0."
        )
    dropped = _as_dict(counts, "dropped")
    if total["unseen_labels"]:
        dropped["validation label never seen in training"] = total["unseen_labels"]
    summary = CorpusSummary(
        fingerprint=spec.fingerprint,
        label_counts=_by_label(counts, "training", labels),
        dropped=dropped,
        num_training=total["training"],
        num_validation=total["validation"],
        held_out=not spec.validation,
        num_tokens=total["tokens"],
        unknown_share=total["unknown"] / max(1, total["tokens"]),
        truncated_share=total["truncated"] / max(1, total["training"]),
        source=described(spec.training),
        **asdict(coverage),
    )
    shards = {
        split: [f"{name}.{split}" for name in written["name"].to_pylist()]
        for split in ("training", "validation")
    }
    metadata = {
        "summary": asdict(summary),
        "labels": list(labels.names),
        "kind": "multi" if label_sets else "single",
        **shards,
    }
    storage.write(METADATA_FILE, to_json(metadata, indent=1) + "\n")
