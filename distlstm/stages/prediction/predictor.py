"""From texts to probabilities, in one process. All commands that apply a model use it.

On a CPU, the prediction of a text does not depend on the texts beside it, to the last bit. The
matrix kernels give a row the same result in every batch whose number of rows is a multiple of 16
(measured for oneDNN and MKL, in float32 and bfloat16), so batches are filled up with rows of
padding. Machines of different kinds, numbers of threads, and GPUs may still differ in the last
digits.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from math import gcd
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from distlstm.data.batching import INFERENCE_LIMITS, cut_by_length
from distlstm.model.batch import Batch
from distlstm.model.directory import TrainedModel, load_model
from distlstm.model.recurrent import recurrent_dtype
from distlstm.model.training import predict
from distlstm.text.tokenizer import TokenIds, Tokenizer, run_indices
from distlstm.text.vocabulary import PADDING_ID, UNKNOWN_ID

_ROWS_TOKENISED_AT_ONCE = 8_192
_LINEAR_ROWS_AT_ONCE = 2_048
_MOST_PROBABILITIES = 2**24
_LONGEST_IN_BATCH = 8_192
"""Longer rows are predicted alone and not filled up, which would take too much memory."""
_SUM_COLUMNS = 64
"""Columns that torch adds up alike; it treats those that are left over differently."""
_NO_TEXT = TokenIds(np.zeros(0, np.int32), np.zeros(2, np.int64), np.zeros(1, bool))
"""One row without tokens."""


def rows_at_once(num_labels: int) -> int:
    """The maximum number of rows whose probabilities are in memory at once."""
    return max(1, _MOST_PROBABILITIES // num_labels)


@dataclass(frozen=True)
class Predictions:
    """The predictions of a model for some rows.

    `probabilities` (float32, [rows, C], calibrated) is NaN for rows without text. `num_tokens` and
    `num_unknown` (int64, [rows]) count each row's tokens and those outside the vocabulary.
    `is_truncated` (bool, [rows]) marks rows that were cut short, `by_linear` (bool, [rows]) those
    that the linear model answered alone.
    """

    probabilities: np.ndarray
    num_tokens: np.ndarray
    num_unknown: np.ndarray
    is_truncated: np.ndarray
    by_linear: np.ndarray

    @property
    def has_text(self) -> np.ndarray:
        """Which rows were classified (bool, [rows])."""
        return self.num_tokens > 0

    @property
    def label_ids(self) -> np.ndarray:
        """Most probable label id of each row; 0 for rows without text."""
        return np.asarray(np.nan_to_num(self.probabilities).argmax(1))

    @property
    def scores(self) -> np.ndarray:
        """Probability of the most probable label; NaN for rows without text."""
        return np.asarray(self.probabilities.max(1))

    def take(self, rows: np.ndarray | slice) -> "Predictions":
        """The predictions of some of the rows."""
        return Predictions(**{name: values[rows] for name, values in vars(self).items()})

    @classmethod
    def concatenate(cls, pieces: Sequence["Predictions"]) -> "Predictions":
        """The predictions of all pieces (at least one), in order."""
        if len(pieces) == 1:
            return pieces[0]
        return cls(
            **{name: np.concatenate([vars(p)[name] for p in pieces]) for name in vars(pieces[0])}
        )


@dataclass(frozen=True)
class EncodedTexts:
    """Texts as token ids, each distinct text once."""

    tokens: TokenIds
    """Of the distinct texts; the last entry stands for a missing text and has no tokens."""
    index: np.ndarray
    """Index of each row's text among the distinct texts (int64, [rows])."""
    linear_logits: np.ndarray
    """Logits of the linear model for the distinct texts (float32, [texts, C]); 0 without one."""

    def take(self, texts: np.ndarray) -> "EncodedTexts":
        """Some of the distinct texts (int64, [rows]), a row for each."""
        return EncodedTexts(
            self.tokens.take(texts), np.arange(len(texts)), self.linear_logits[texts]
        )

    @classmethod
    def concatenate(cls, pieces: Sequence["EncodedTexts"]) -> "EncodedTexts":
        """The distinct texts of all pieces (at least one), a row for each."""
        if len(pieces) == 1:
            return pieces[0]
        tokens = TokenIds.concatenate([piece.tokens for piece in pieces])
        logits = np.concatenate([piece.linear_logits for piece in pieces])
        return cls(tokens, np.arange(len(logits)), logits)


class Predictor:
    """Classifies texts with a model on one device, in batches of rows of similar length."""

    def __init__(self, model: TrainedModel, *, device: torch.device, num_threads: int = 1) -> None:
        self.model = model
        self.device = device
        self.num_threads = num_threads
        limits = INFERENCE_LIMITS[device.type]
        if device.type == "cpu":
            hidden_dim = model.config.model.hidden_dim
            aligned = _SUM_COLUMNS // gcd(hidden_dim, _SUM_COLUMNS)
            limits = replace(limits, multiple=max(limits.multiple, aligned))
        self.limits = limits
        self.tokenizer = Tokenizer(model.config.text, model.vocabulary)
        dtype = recurrent_dtype(model.config.training.precision, device)
        self.classifier = model.classifier.to(device).for_inference(dtype)

    @classmethod
    def load(
        cls,
        path: Path,
        metadata: dict[str, Any] | None = None,
        *,
        num_threads: int,
        use_gpu: bool,
    ) -> "Predictor":
        """Load a MODEL directory in this process; `metadata` is read from it if not given.

        Raises:
            UserError: the directory is not a model, or is damaged.
        """
        device = torch.device("cuda" if use_gpu else "cpu")
        return cls(load_model(path, metadata), device=device, num_threads=num_threads)

    def __call__(self, texts: pa.Array) -> Predictions:
        """Classify texts (string, [rows]); null is a missing text."""
        return self.classify(self.encode(texts))

    def encode(self, texts: pa.Array) -> EncodedTexts:
        """Tokenise texts (string, [rows]) and apply the linear model; runs on the CPU only."""
        encoded = texts.dictionary_encode()
        distinct = encoded.dictionary
        index = encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
        slices = [
            distinct.slice(start, _ROWS_TOKENISED_AT_ONCE)
            for start in range(0, len(distinct), _ROWS_TOKENISED_AT_ONCE)
        ]
        tokens = TokenIds.concatenate([*map(self.tokenizer.encode, slices), _NO_TEXT])
        return EncodedTexts(tokens, index, self._linear_logits(tokens))

    def _linear_logits(self, tokens: TokenIds) -> np.ndarray:
        if self.model.linear is None:
            return np.zeros((len(tokens.lengths), len(self.model.labels)), np.float32)
        return self.model.linear.logits(tokens.values, tokens.offsets)

    def classify(
        self, texts: EncodedTexts, *, on_rows: Callable[[float], None] | None = None
    ) -> Predictions:
        """Classify each distinct text once.

        Args:
            texts: the result of `encode`.
            on_rows: called with a number of rows when the linear model has answered its rows, and
                after each batch. The number is in proportion to the tokens and includes duplicates;
                the numbers sum to all rows, if any row has a text.
        """
        torch.set_num_threads(self.num_threads)  # OpenMP has a setting for each calling thread
        tokens = texts.tokens
        rows_per_token = len(texts.index) / max(1, len(tokens.values))
        probabilities, by_linear = self._linear_answers(texts)
        if on_rows is not None and by_linear.any():
            on_rows(rows_per_token * float(tokens.lengths[by_linear].sum()))
        batches = list(self._cut(tokens, np.flatnonzero((tokens.lengths > 0) & ~by_linear)))
        padded = (self._batch(tokens, rows) for rows in batches)
        outputs = predict(self.classifier, padded, device=self.device)
        for rows, (logits, _) in zip(batches, outputs, strict=True):
            recurrent = logits[: len(rows)] / self.model.temperature
            probabilities[rows] = self.model.kind.probabilities(
                recurrent + texts.linear_logits[rows]
            )
            if on_rows is not None:
                on_rows(rows_per_token * float(tokens.lengths[rows].sum()))
        of_distinct = Predictions(
            probabilities=probabilities,
            num_tokens=tokens.lengths,
            num_unknown=tokens.count(UNKNOWN_ID),
            is_truncated=tokens.truncated,
            by_linear=by_linear,
        )
        return of_distinct.take(texts.index)

    def needs_layers(self, texts: EncodedTexts) -> np.ndarray:
        """Which distinct texts go through the recurrent layers (bool, [texts])."""
        _, is_final = self._linear_answers(texts)
        return np.asarray((texts.tokens.lengths > 0) & ~is_final)

    def _linear_answers(self, texts: EncodedTexts) -> tuple[np.ndarray, np.ndarray]:
        """The final answers of the linear model.

        Returns probabilities (float32 [texts, C], else NaN), and which texts are final (bool
        [texts]).
        """
        probabilities = np.full(texts.linear_logits.shape, np.nan, np.float32)
        final = np.zeros(len(probabilities), bool)
        cascade = self.model.cascade
        if cascade is None:
            return probabilities, final
        for start in range(0, len(final), _LINEAR_ROWS_AT_ONCE):
            some = slice(start, start + _LINEAR_ROWS_AT_ONCE)
            linear_logits = texts.linear_logits[some]
            final[some] = cascade.is_final(linear_logits) & (texts.tokens.lengths[some] > 0)
            probabilities[some][final[some]] = cascade.probabilities(linear_logits[final[some]])
        return probabilities, final

    def _cut(self, tokens: TokenIds, rows: np.ndarray) -> Iterator[np.ndarray]:
        is_long = tokens.lengths[rows] > _LONGEST_IN_BATCH
        yield from cut_by_length(rows[~is_long], tokens.lengths, self.limits)
        yield from rows[is_long][:, None]

    def _batch(self, tokens: TokenIds, rows: np.ndarray) -> Batch:
        """The rows, filled up with rows of one token of padding."""
        lengths = tokens.lengths[rows]
        token_ids = tokens.values[run_indices(tokens.offsets[rows], lengths)]
        num_missing = 0 if lengths[0] > _LONGEST_IN_BATCH else -len(rows) % self.limits.multiple
        return Batch.of_rows(
            np.concatenate([token_ids, np.full(num_missing, PADDING_ID, token_ids.dtype)]),
            np.concatenate([lengths, np.ones(num_missing, lengths.dtype)]),
        )
