"""What a recurrent network must beat: the most frequent label, and a linear n-gram model.

The linear model is also the network's wide partner.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from safetensors.torch import load_file, save_file

from distlstm.atomic import replace_file
from distlstm.config import ModelConfig
from distlstm.data.corpus import EncodedCorpus
from distlstm.data.shards import EncodedRows, Shards
from distlstm.model.linear import LinearModel, fit_linear
from distlstm.model.metrics import Metrics, Totals, metrics_of
from distlstm.text.subwords import subwords_of

_LINEAR_FILE = "linear.safetensors"
_MAX_TOKENS = 20_000_000


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Validation metrics of the two simplest models, on the split the network was judged on."""

    majority: Metrics
    linear: Metrics
    linear_rows: int
    """Training rows the linear model saw; a sample of a large corpus."""


def wide_partner(corpus: EncodedCorpus, config: ModelConfig) -> LinearModel | None:
    """The linear model, if the recurrent one is to have it for a partner."""
    return linear_model(corpus) if config.wide else None


def final_partner(corpus: EncodedCorpus, config: ModelConfig) -> LinearModel | None:
    """The partner to be kept: rows held out to judge it by are no longer withheld from it."""
    if not config.wide or not corpus.summary.held_out:
        return wide_partner(corpus, config)
    return _fit(corpus, [corpus.training, corpus.validation])


def linear_model(corpus: EncodedCorpus) -> LinearModel:
    """Fitted on the training split, or on some 20 million tokens of it; kept beside the corpus."""
    path = corpus.path / _LINEAR_FILE
    num_labels = len(corpus.labels)
    if path.exists():
        return LinearModel.from_tensors(
            load_file(path), vocab_size=len(corpus.vocabulary), num_labels=num_labels
        )
    model = _fit(corpus, [corpus.training])
    with replace_file(path) as temporary:
        save_file(model.to_tensors(), temporary)
    return model


def _fit(corpus: EncodedCorpus, splits: Sequence[Shards]) -> LinearModel:
    rows = [shards.take(_sample(shards)) for shards in splits]
    lengths = np.concatenate([part.lengths for part in rows])
    return fit_linear(
        np.concatenate([part.token_ids for part in rows]),
        np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]),
        np.concatenate([part.label_ids for part in rows]),
        num_labels=len(corpus.labels),
        subwords=subwords_of(corpus.vocabulary.tokens),
    )


def measure_baseline(corpus: EncodedCorpus) -> Baseline:
    """Judge both on the validation split, or on some 20 million tokens of it."""
    num_labels = len(corpus.labels)
    validation = corpus.validation.take(_sample(corpus.validation))
    most_frequent = int(np.bincount(corpus.training.label_ids, minlength=num_labels).argmax())
    majority = np.full(len(validation.label_ids), most_frequent)
    predicted = linear_model(corpus).predict(validation.token_ids, validation.offsets)
    return Baseline(
        majority=_metrics(majority, validation, num_labels),
        linear=_metrics(predicted, validation, num_labels),
        linear_rows=len(_sample(corpus.training)),
    )


def _sample(shards: Shards) -> np.ndarray:
    """Row indices: all, or evenly spread ones with some 20 million tokens."""
    share = _MAX_TOKENS / max(1, int(shards.lengths.sum(dtype=np.int64)))
    if share >= 1:
        return np.arange(len(shards))
    rng = np.random.default_rng(0)
    return np.sort(rng.choice(len(shards), int(len(shards) * share), replace=False))


def _metrics(predicted: np.ndarray, rows: EncodedRows, num_labels: int) -> Metrics:
    return metrics_of(Totals.of(np.eye(num_labels)[predicted], rows.label_ids))
