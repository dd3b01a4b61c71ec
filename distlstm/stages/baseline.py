"""What a recurrent network must beat: the most frequent label, and a linear n-gram model."""

from dataclasses import dataclass

import numpy as np

from distlstm.data.corpus import EncodedCorpus
from distlstm.data.shards import EncodedRows, Shards
from distlstm.model.label_kind import label_kind
from distlstm.model.linear import fit_linear
from distlstm.model.metrics import Metrics

_MAX_TOKENS = 20_000_000


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Validation metrics of the two simplest models, on the split the network was judged on."""

    majority: Metrics
    linear: Metrics
    linear_rows: int
    """Training rows the linear model saw; a sample of a large corpus."""


def measure_baseline(corpus: EncodedCorpus, *, seed: int) -> Baseline:
    """Fit both on the training split, or on a sample of some 20 million tokens of it."""
    num_labels = len(corpus.labels)
    training = _rows(corpus.training, seed)
    validation = _rows(corpus.validation, seed)
    if corpus.kind == "multi" and training.targets is not None:
        truth, counts = training.targets, training.targets.sum(0)
    else:
        truth = training.label_ids
        counts = np.bincount(corpus.training.label_ids, minlength=num_labels)
    linear = fit_linear(training.token_ids, _offsets(training), truth, num_labels=num_labels)
    margins = linear.logits(validation.token_ids, _offsets(validation)).numpy()
    more_than_half = np.tile(counts - len(truth) / 2, (len(validation.label_ids), 1))
    return Baseline(
        majority=_metrics(more_than_half, validation, corpus),
        linear=_metrics(margins, validation, corpus),
        linear_rows=len(training.label_ids),
    )


def _rows(shards: Shards, seed: int) -> EncodedRows:
    rows = np.arange(len(shards))
    share = _MAX_TOKENS / max(1, int(shards.lengths.sum(dtype=np.int64)))
    if share < 1:
        rng = np.random.default_rng(seed)
        rows = np.sort(rng.choice(len(shards), int(len(shards) * share), replace=False))
    return shards.take(rows)


def _offsets(rows: EncodedRows) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(rows.lengths)])


def _metrics(margins: np.ndarray, rows: EncodedRows, corpus: EncodedCorpus) -> Metrics:
    kind = label_kind(corpus.kind)
    return kind.metrics(kind.totals(kind.certain(margins), rows.label_ids, rows.targets))
