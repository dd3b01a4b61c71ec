"""From a text column to probabilities, in one process. Used by all commands that apply a model."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from distlstm.data.batching import cut_by_length
from distlstm.model.batch import Batch
from distlstm.model.calibration import softmax
from distlstm.model.classifier import recurrent_dtype
from distlstm.model.directory import Model, load_model
from distlstm.model.loop import predict
from distlstm.text.columns import read_texts
from distlstm.text.tokenizer import Tokenizer, run_indices
from distlstm.text.vocabulary import UNKNOWN_ID

_TOKENS_PER_BATCH = 32_768
_ROWS_PER_BATCH = 256


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What a model says of some rows.

    `probabilities` (float64, [rows, C], calibrated) is NaN where there is no text; `missing`
    counts those rows by reason.
    """

    probabilities: np.ndarray
    missing: dict[str, int]
    num_tokens: int
    num_unknown: int
    num_truncated: int

    @property
    def has_text(self) -> np.ndarray:
        """Which rows were classified (bool, [rows])."""
        return np.asarray(~np.isnan(self.probabilities[:, 0]))

    @property
    def label_ids(self) -> np.ndarray:
        """Most probable label id of each row; 0 where there is no text."""
        return np.asarray(np.nan_to_num(self.probabilities).argmax(1))

    @property
    def scores(self) -> np.ndarray:
        """Probability of the most probable label; NaN where there is no text."""
        return np.asarray(self.probabilities.max(1))


class Predictor:
    """A model ready to classify, on one device, with rows of like length side by side."""

    def __init__(self, model: Model, *, device: torch.device) -> None:
        self.model = model
        self.device = device
        self.tokenizer = Tokenizer(model.config.text, model.vocabulary)
        model.classifier.to(device)
        dtype = recurrent_dtype(model.config.training.precision, device)
        model.classifier.for_inference(dtype)

    @classmethod
    def load(cls, path: Path, *, num_threads: int, use_gpu: bool) -> "Predictor":
        """Load a MODEL directory in a worker process.

        Raises:
            UserError: the directory is no model, or damaged.
        """
        torch.set_num_threads(num_threads)
        return cls(load_model(path), device=torch.device("cuda" if use_gpu else "cpu"))

    def __call__(self, texts: pa.Array) -> Predictions:
        """Classify a text column ([rows], any type that holds text).

        Raises:
            UserError: the column does not hold text.
        """
        column = read_texts(texts)
        tokens = self.tokenizer.encode(column.texts)
        lengths = tokens.lengths
        rows = np.flatnonzero(lengths)
        logits = np.full((len(texts), len(self.model.labels)), np.nan, np.float32)
        batches = list(
            cut_by_length(
                rows, lengths, tokens_per_batch=_TOKENS_PER_BATCH, rows_per_batch=_ROWS_PER_BATCH
            )
        )
        padded = (
            Batch.of_rows(
                tokens.values[run_indices(tokens.offsets[batch], lengths[batch])], lengths[batch]
            )
            for batch in batches
        )
        outputs = predict(self.model.classifier, padded, device=self.device)
        for batch, (of_batch, _) in zip(batches, outputs, strict=True):
            logits[batch] = of_batch
        return Predictions(
            probabilities=softmax(logits, self.model.temperature),
            missing=column.missing,
            num_tokens=len(tokens.values),
            num_unknown=int((tokens.values == UNKNOWN_ID).sum()),
            num_truncated=int(tokens.truncated.sum()),
        )
