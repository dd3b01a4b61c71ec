"""Gathers the texts of all callers into batches of similar length, and answers them.

One thread computes. While it does, new requests gather; when it is free, it takes all of them at
once, so a request that finds it idle never waits. It encodes them and answers what needs no
recurrent layers. The other texts join a pool, from which it takes batch after batch: the text that
has waited longest, and those nearest to it in length, up to a number of tokens. So a short text is
not padded to a long one, waits for one batch at most if its turn has come, and every text gets its
turn. A batch does not change the scores of a text (see `Predictor`).
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from distlstm.stages.prediction.part_content import prediction_columns
from distlstm.stages.prediction.predictor import EncodedTexts, Predictions, Predictor
from distlstm.stages.serving.payload import Question
from distlstm.text.columns import read_texts

_TOKENS_OF_A_BATCH = 4_096
"""With padding: some 20 ms of one core, the longest that an arriving text waits for its turn."""
_ROWS_OF_A_BATCH = 256
_ALIKE = 8
"""Lengths that differ by so many tokens are always alike."""
_ROWS_ENCODED_AT_ONCE = 1_000

Answers = list[dict[str, Any]]


class Answered(NamedTuple):
    """The answers to a question, and by which model they were given."""

    rows: Answers
    num_tokens: int
    fingerprint: str


@dataclass(eq=False)
class Waiting:
    """A question whose answers are being gathered."""

    question: Question
    on_answer: Callable[[Answered | Exception], None]
    """Called in the thread that computes."""
    positions: list[np.ndarray] = field(default_factory=list)
    pieces: list[Predictions] = field(default_factory=list)
    num_missing: int = 0

    def add(self, positions: np.ndarray, predictions: Predictions) -> bool:
        """Add the predictions of some texts; whether all are there."""
        self.positions.append(positions)
        self.pieces.append(predictions)
        self.num_missing -= len(positions)
        return self.num_missing == 0

    @property
    def predictions(self) -> Predictions:
        """Of all texts, in their order."""
        order = np.argsort(np.concatenate(self.positions))
        return Predictions.concatenate(self.pieces).take(order)


@dataclass(frozen=True)
class Batch:
    """The size of a batch that was computed, for the metrics."""

    num_texts: int
    num_tokens: int


class Pool:
    """Encoded texts that wait for the recurrent layers, oldest first."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor
        self.texts: EncodedTexts | None = None
        self.owners: list[tuple[Waiting, int]] = []
        """The question of each text, and the text's position in it."""

    def __len__(self) -> int:
        return len(self.owners)

    def add(self, texts: EncodedTexts, owners: Iterable[tuple[Waiting, int]]) -> None:
        """Add texts, a row for each."""
        pieces = [texts] if self.texts is None else [self.texts, texts]
        self.texts = EncodedTexts.concatenate(pieces)
        self.owners += owners

    def take(self) -> tuple[EncodedTexts, list[tuple[Waiting, int]]]:
        """Remove the next batch; the pool must not be empty."""
        if self.texts is None:
            raise ValueError("the pool is empty")
        chosen = next_batch(self.texts.tokens.lengths, multiple=self.predictor.limits.multiple)
        taken, owners = self.texts.take(chosen), [self.owners[i] for i in chosen]
        left = np.delete(np.arange(len(self.owners)), chosen)
        self.texts = self.texts.take(left) if len(left) else None
        self.owners = [self.owners[i] for i in left]
        return taken, owners


def next_batch(lengths: np.ndarray, *, multiple: int = 1) -> np.ndarray:
    """The rows of the next batch (int64, ascending): the first row, and those like it in length.

    A row is like the first if neither is much more than twice as long as the other. Shorter rows
    may join while the batch has fewer than `multiple` rows, up to which it is filled up anyway.

    Args:
        lengths: tokens of the rows that wait, the oldest first (at least one).
        multiple: see `BatchLimits.multiple`.
    """
    first = int(lengths[0])
    fitting = np.flatnonzero(lengths <= 2 * first + _ALIKE)
    nearest = fitting[np.argsort(np.abs(lengths[fitting] - first), kind="stable")]
    nearest = nearest[:_ROWS_OF_A_BATCH]
    padded = np.maximum.accumulate(lengths[nearest]) * np.arange(1, len(nearest) + 1)
    within = int(np.count_nonzero(padded <= _TOKENS_OF_A_BATCH))
    alike = int(np.count_nonzero(2 * lengths[nearest] + _ALIKE >= first))
    return np.sort(nearest[: max(1, min(within, max(alike, multiple)))])


class Batcher:
    """Answers questions with the current model; `ask` may be called from any thread."""

    def __init__(
        self, predictor: Callable[[], Predictor], *, on_batch: Callable[[Batch], None]
    ) -> None:
        self._predictor = predictor
        self._on_batch = on_batch
        self._arrived: list[Waiting] = []
        self._changed = threading.Condition()
        self._pool = Pool(predictor())
        threading.Thread(target=self._work, name="predict", daemon=True).start()

    def ask(self, question: Question, on_answer: Callable[[Answered | Exception], None]) -> None:
        """Answer a question; `on_answer` is called once, in another thread."""
        with self._changed:
            self._arrived.append(Waiting(question, on_answer, num_missing=len(question.texts)))
            self._changed.notify()

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._arrived and not self._pool:
                    self._changed.wait()
                arrived: list[Waiting] = []
                if not self._pool or self._pool.predictor is self._predictor():
                    arrived, self._arrived = self._arrived, []
            self._step(arrived)

    def _step(self, arrived: Sequence[Waiting]) -> None:
        """Encode what has arrived, and compute one batch."""
        concerned = list(arrived)
        try:
            if arrived:
                if not self._pool:
                    self._pool = Pool(self._predictor())
                self._admit(arrived)
            if self._pool:
                texts, owners = self._pool.take()
                concerned = [waiting for waiting, _ in owners]
                self._compute(texts, owners)
        except Exception as error:
            for waiting in dict.fromkeys(concerned):
                waiting.on_answer(error)

    def _admit(self, arrived: Sequence[Waiting]) -> None:
        owners = [(waiting, i) for waiting in arrived for i in range(len(waiting.question.texts))]
        given = [text for waiting in arrived for text in waiting.question.texts]
        self._finish([w for w in arrived if not w.question.texts])
        for start in range(0, len(given), _ROWS_ENCODED_AT_ONCE):
            some = slice(start, start + _ROWS_ENCODED_AT_ONCE)
            self._encode(given[some], owners[some])

    def _encode(self, given: Sequence[str], owners: Sequence[tuple[Waiting, int]]) -> None:
        predictor = self._pool.predictor
        encoded = predictor.encode(read_texts(pa.array(given, pa.string())).texts)
        waits = predictor.needs_layers(encoded)[encoded.index]
        later, now = np.flatnonzero(waits), np.flatnonzero(~waits)
        if len(later):
            self._pool.add(encoded.take(encoded.index[later]), [owners[i] for i in later.tolist()])
        if len(now):
            self._compute(encoded.take(encoded.index[now]), [owners[i] for i in now.tolist()])

    def _compute(self, texts: EncodedTexts, owners: Sequence[tuple[Waiting, int]]) -> None:
        predictions = self._pool.predictor.classify(texts)
        self._on_batch(Batch(len(owners), int(predictions.num_tokens.sum())))
        rows_of: dict[Waiting, list[int]] = {}
        for row, (waiting, _) in enumerate(owners):
            rows_of.setdefault(waiting, []).append(row)
        complete = []
        for waiting, rows in rows_of.items():
            positions = np.array([owners[row][1] for row in rows])
            if waiting.add(positions, predictions.take(np.array(rows))):
                complete.append(waiting)
        self._finish(complete)

    def _finish(self, complete: Sequence[Waiting]) -> None:
        """Give the answers; those with the same settings are converted together."""
        alike: dict[tuple[int | None, float | None], list[Waiting]] = {}
        for waiting in complete:
            settings = waiting.question.top_k, waiting.question.min_score
            alike.setdefault(settings, []).append(waiting)
        model = self._pool.predictor.model
        for (top_k, min_score), some in alike.items():
            of_each = [waiting.predictions if waiting.pieces else None for waiting in some]
            present = [each for each in of_each if each is not None]
            rows: Answers = []
            if present:
                rows = self._answers(Predictions.concatenate(present), top_k, min_score)
            start = 0
            for waiting, predictions in zip(some, of_each, strict=True):
                end = start + len(waiting.question.texts)
                num_tokens = 0 if predictions is None else int(predictions.num_tokens.sum())
                waiting.on_answer(Answered(rows[start:end], num_tokens, model.fingerprint))
                start = end

    def _answers(
        self, predictions: Predictions, top_k: int | None, min_score: float | None
    ) -> Answers:
        """The columns that `batch-predict` writes, by row, without `predicted_` in their names."""
        model = self._pool.predictor.model
        names = pa.array(model.labels.names, pa.string())
        columns = prediction_columns(
            predictions, names, model.kind, top_k=top_k, min_score=min_score
        )
        short = {name.removeprefix("predicted_"): column for name, column in columns.items()}
        return list(pa.table(short).to_pylist())
