"""The baselines of every training: the most frequent label, and the linear model of n-grams.

With `model.wide`, the linear model is also a member of the ensemble.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from safetensors.torch import load_file, save_file

from distlstm.config import ExperimentConfig
from distlstm.data.corpus import EncodedCorpus
from distlstm.data.shards import EncodedRows, Shards
from distlstm.model.label_kind import label_kind
from distlstm.model.linear import LinearModel, fit_linear
from distlstm.model.metrics import Metrics
from distlstm.text.subwords import subwords_of

_LINEAR_FILE = "linear.safetensors"
_MAX_TOKENS = 20_000_000


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Validation metrics of the two baselines, on the same split as the recurrent model."""

    majority: Metrics
    linear: Metrics
    linear_rows: int
    """Number of training rows of the linear model; fewer than all if the corpus is large."""


def ensemble_linear(corpus: EncodedCorpus, config: ExperimentConfig) -> LinearModel | None:
    """The linear model fitted on the training split; None if the ensemble does not use it.

    Training with balanced labels does not use it: it gives all rows the same weight, which would
    undo the balance.
    """
    return linear_model(corpus) if _uses_linear(config) else None


def final_linear(corpus: EncodedCorpus, config: ExperimentConfig) -> LinearModel | None:
    """The linear model of the finished MODEL: it is also fitted on the rows that were held out."""
    if not _uses_linear(config) or not corpus.summary.held_out:
        return ensemble_linear(corpus, config)
    return _fit(corpus, [corpus.training, corpus.validation])


def _uses_linear(config: ExperimentConfig) -> bool:
    return config.model.wide and config.training.class_weights == "none"


def linear_model(corpus: EncodedCorpus) -> LinearModel:
    """The linear model of the training split, or of about 20 million tokens of it.

    It is fitted once and stored with the corpus.
    """
    if corpus.storage.exists(_LINEAR_FILE):
        with corpus.storage.as_file(_LINEAR_FILE) as file:
            return LinearModel.from_tensors(
                load_file(file), vocab_size=len(corpus.vocabulary), num_labels=len(corpus.labels)
            )
    model = _fit(corpus, [corpus.training])
    with corpus.storage.replacing(_LINEAR_FILE) as temporary:
        save_file(model.to_tensors(), temporary)
    return model


def _fit(corpus: EncodedCorpus, splits: Sequence[Shards]) -> LinearModel:
    samples = [(shards, _sample(shards)) for shards in splits]
    rows = [shards.take(sample) for shards, sample in samples]
    truth = [_truth(corpus, shards, sample) for shards, sample in samples]
    given = np.concatenate([shards.weights[sample] for shards, sample in samples])
    lengths = np.concatenate([part.lengths for part in rows])
    return fit_linear(
        np.concatenate([part.token_ids for part in rows]),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
        np.concatenate(truth),
        num_labels=len(corpus.labels),
        subwords=subwords_of(corpus.vocabulary.tokens),
        row_weights=(given / given.mean()).astype(np.float32),
    )


def _truth(corpus: EncodedCorpus, shards: Shards, sample: np.ndarray) -> np.ndarray:
    """Label ids [rows]; for label sets, 1 for each label of a row [rows, C]."""
    members = shards.targets_of(sample) if label_kind(corpus.kind).gives_sets else None
    return shards.label_ids[sample] if members is None else members


def measure_baseline(corpus: EncodedCorpus) -> Baseline:
    """Measure both baselines on the validation split, or on about 20 million tokens of it."""
    validation = corpus.validation.take(_sample(corpus.validation))
    margins = linear_model(corpus).logits(validation.token_ids, validation.offsets)
    truth = _truth(corpus, corpus.training, _sample(corpus.training))
    counts = truth.sum(0) if truth.ndim == 2 else np.bincount(truth, minlength=len(corpus.labels))
    more_than_half = np.tile(counts - len(truth) / 2, (len(validation.label_ids), 1))
    return Baseline(
        majority=_metrics(more_than_half, validation, corpus),
        linear=_metrics(margins, validation, corpus),
        linear_rows=len(truth),
    )


def _sample(shards: Shards) -> np.ndarray:
    """Sorted row indices: all, or a random sample of about 20 million tokens."""
    share = _MAX_TOKENS / max(1, int(shards.lengths.sum(dtype=np.int64)))
    if share >= 1:
        return np.arange(len(shards))
    rng = np.random.default_rng(0)
    return np.sort(rng.choice(len(shards), int(len(shards) * share), replace=False))


def _metrics(margins: np.ndarray, rows: EncodedRows, corpus: EncodedCorpus) -> Metrics:
    kind = label_kind(corpus.kind)
    return kind.metrics(kind.totals(kind.certain(margins), rows.label_ids, rows.targets))
