"""Encoded shards: Arrow files of token ids that every worker maps into memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from distlstm.storage import Directory
from distlstm.text.labels import one_hot
from distlstm.text.tokenizer import TokenIds, run_indices


@dataclass(frozen=True)
class EncodedRows:
    """Some rows of an encoded corpus.

    `token_ids` (int32, [sum of lengths]) are the rows, concatenated; `lengths` and `label_ids` are
    int64 [rows]. `targets` (float32, [rows, C]) are the probabilities of the labels, or 1 for each
    label of a set, if the corpus has them; `label_ids` are then the most probable labels, or 0.
    """

    token_ids: np.ndarray
    lengths: np.ndarray
    label_ids: np.ndarray
    targets: np.ndarray | None = None

    @property
    def offsets(self) -> np.ndarray:
        """The start of each row, and the end of the last (int64, [rows + 1])."""
        return np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths)])


def write_shard(
    storage: Directory,
    name: str,
    tokens: Sequence[TokenIds],
    label_ids: Sequence[np.ndarray],
    *,
    weights: Sequence[np.ndarray] = (),
    targets: Sequence[np.ndarray] = (),
) -> None:
    """Write batches of rows as one Arrow file: whole or not at all.

    Without `weights`, all rows have the same weight; without `targets`, each row has one label.
    """
    lengths = np.concatenate([np.zeros(1, np.int64), *(batch.lengths for batch in tokens)])
    values = np.concatenate([np.zeros(0, np.int32), *(batch.values for batch in tokens)])
    labels = np.concatenate([np.zeros(0, np.int32), *label_ids])
    rows = pa.LargeListArray.from_arrays(np.cumsum(lengths), pa.array(values, pa.int32()))
    columns = {"token_ids": rows, "label_id": pa.array(labels, pa.int32())}
    if weights:
        columns["weight"] = pa.array(np.concatenate(weights), pa.float32())
    if targets:
        probabilities = np.concatenate(targets).astype(np.float32, copy=False)
        columns["target"] = pa.FixedSizeListArray.from_arrays(
            pa.array(probabilities.ravel()), probabilities.shape[1]
        )
    batch = pa.RecordBatch.from_pydict(columns)
    with (
        storage.replacing(name) as temporary,
        pa.ipc.new_file(str(temporary), batch.schema) as writer,
    ):
        writer.write_batch(batch)


class Shards:
    """Random access to the rows of several shards, as if they were one.

    Token ids and targets are memory-mapped. Lengths, label ids and weights (if there are any) are
    in memory, 4 bytes per row each.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        batches = [_map(path) for path in paths]
        self._tokens = [batch.column(0).values.to_numpy() for batch in batches]
        self._starts = [batch.column(0).offsets.to_numpy() for batch in batches]
        lengths = [np.diff(starts).astype(np.int32) for starts in self._starts]
        labels = [batch.column(1).to_numpy() for batch in batches]
        self.lengths = np.concatenate([np.zeros(0, np.int32), *lengths])
        """Tokens of each row (int32, [rows])."""
        self.label_ids = np.concatenate([np.zeros(0, np.int32), *labels])
        """Label id of each row (int32, [rows])."""
        self.weights = _weights_of(batches)
        """The given weight of each row (float32, [rows]); 1 if none was given."""
        self._targets = [_targets(batch) for batch in batches]
        self._first_rows = np.cumsum([0, *map(len, labels)])

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, rows: np.ndarray) -> EncodedRows:
        """The rows at these indices (int64, [rows]), in this order."""
        lengths = self.lengths[rows].astype(np.int64)
        token_ids = self.tokens(rows, np.zeros(len(rows), np.int64), lengths)
        label_ids = self.label_ids[rows].astype(np.int64)
        return EncodedRows(token_ids, lengths, label_ids, self.targets_of(rows))

    def tokens(self, rows: np.ndarray, begins: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Runs of token ids, concatenated (int32); each within a row, from a token of it on."""
        ends = np.cumsum(lengths)
        token_ids = np.empty(int(lengths.sum()), np.int32)
        shard_of = np.searchsorted(self._first_rows, rows, side="right") - 1
        for shard in np.unique(shard_of):
            mine = np.flatnonzero(shard_of == shard)
            sources = self._starts[shard][rows[mine] - self._first_rows[shard]] + begins[mine]
            targets = run_indices((ends - lengths)[mine], lengths[mine])
            token_ids[targets] = self._tokens[shard][run_indices(sources, lengths[mine])]
        return token_ids

    def targets_of(self, rows: np.ndarray) -> np.ndarray | None:
        """The targets of these rows (float32, [rows, C]); None if no shard has targets.

        Rows of shards without targets are one-hot.
        """
        num_labels = next((found.shape[1] for found in self._targets if found is not None), None)
        if num_labels is None:
            return None
        targets = one_hot(self.label_ids[rows], num_labels)
        shard_of = np.searchsorted(self._first_rows, rows, side="right") - 1
        for shard in np.unique(shard_of):
            found = self._targets[shard]
            if found is not None:
                mine = np.flatnonzero(shard_of == shard)
                targets[mine] = found[rows[mine] - self._first_rows[shard]]
        return targets


def _map(path: Path) -> pa.RecordBatch:
    return pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)


def _targets(batch: pa.RecordBatch) -> np.ndarray | None:
    if "target" not in batch.schema.names:
        return None
    column = batch.column("target")
    return np.asarray(column.values.to_numpy().reshape(len(column), column.type.list_size))


def _weights_of(batches: Sequence[pa.RecordBatch]) -> np.ndarray:
    if not any("weight" in batch.schema.names for batch in batches):
        return np.broadcast_to(np.float32(1), sum(batch.num_rows for batch in batches))
    return np.concatenate([np.zeros(0, np.float32), *map(_weights, batches)])


def _weights(batch: pa.RecordBatch) -> np.ndarray:
    if "weight" in batch.schema.names:
        return np.asarray(batch.column("weight").to_numpy())
    return np.ones(batch.num_rows, np.float32)
