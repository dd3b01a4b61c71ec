"""The plan of an epoch: which rows make up each step, as a pure function.

Rows are shuffled, sorted by length within windows, and cut into steps of similar length, so that
there is little padding; then the steps are shuffled. Every rank computes the same plan and takes
its own rows of each step. So all ranks take the same number of steps, and neither the rows of a
step nor its gradient depend on the number of ranks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from distlstm.config import PretrainingConfig, TrainingConfig

_STEPS_PER_WINDOW = 50
_LEAST_TOKENS_PER_ROW = 4


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """The most rows and tokens of one batch."""

    rows: int
    tokens: int
    """With padding; a row that is longer gets a batch of its own."""
    multiple: int = 1
    """Batches have a multiple of this many rows where there are as many, however long they are."""


INFERENCE_LIMITS = {
    "cpu": BatchLimits(tokens=20_480, rows=256, multiple=16),
    "cuda": BatchLimits(tokens=1_048_576, rows=8_192),
}
"""The limits of a batch at inference, by device type."""


def step_limits(config: TrainingConfig, num_rows: int) -> BatchLimits:
    """The limits of a training step, over all workers: as configured, or by the size of the corpus.

    A small corpus needs small steps, or it would have too few of them: a hundredth of its rows,
    from 16 to 128. A large corpus has steps to spare, and larger steps are faster, above all with
    several workers, which synchronise after each one: from 256,000 rows on, a two-thousandth of
    the rows, up to 256. Tokens are 64 per row, at least 8,192.
    """
    small, large = min(128, max(16, num_rows // 100)), min(256, num_rows // 2_000)
    rows = config.rows_per_batch or max(small, large)
    tokens = config.tokens_per_batch or max(8_192, 64 * rows)
    return BatchLimits(rows=rows, tokens=tokens)


def text_limits(config: PretrainingConfig, num_tokens: int) -> BatchLimits:
    """The limits of a step of a language model, as configured, or by the size of the corpus."""
    tokens = config.tokens_per_batch or min(4_096, max(512, num_tokens // 300))
    return BatchLimits(rows=max(1, tokens // _LEAST_TOKENS_PER_ROW), tokens=tokens)


def plan_epoch(
    lengths: np.ndarray, limits: BatchLimits, *, seed: int, epoch: int
) -> list[np.ndarray]:
    """The steps of one training epoch: row indices, every row in exactly one step.

    Indices are int32 if the rows are few enough, else int64: of a large corpus, the plan takes the
    most memory.

    Args:
        lengths: tokens of each row, [rows].
        limits: of one step.
        seed: determines the order, together with `epoch`.
        epoch: number of the epoch, from 0.
    """
    rng = np.random.default_rng((seed, epoch))
    order = np.arange(len(lengths), dtype=np.int32 if len(lengths) < 2**31 else np.int64)
    rng.shuffle(order)
    window = limits.rows * _STEPS_PER_WINDOW
    steps = [
        step
        for start in range(0, len(order), window)
        for step in cut_by_length(order[start : start + window], lengths, limits)
    ]
    return [steps[i] for i in rng.permutation(len(steps))]


def cut_by_length(
    rows: np.ndarray, lengths: np.ndarray, limits: BatchLimits
) -> Iterator[np.ndarray]:
    """Sort rows by length and cut them into batches within both limits."""
    rows = rows[np.argsort(lengths[rows], kind="stable")]
    ordered = lengths[rows].astype(np.int64)
    counts = np.arange(1, limits.rows + 1)
    start = 0
    while start < len(rows):
        following = ordered[start : start + limits.rows]
        padded = following * counts[: len(following)]
        size = int(np.searchsorted(padded, limits.tokens, side="right"))
        size = max(limits.multiple, size - size % limits.multiple)
        yield rows[start : start + size]
        start += size


def rows_of_rank(step: np.ndarray, *, rank: int, world_size: int) -> tuple[np.ndarray, np.ndarray]:
    """A rank's rows of a step, and their weights (float32, [rows]).

    The ranks' weighted sums, averaged over the ranks, are the mean over the step. If a short step
    has no row for a rank, the rank repeats one with weight 0, so that it still takes the step.
    """
    mine = step[rank::world_size]
    if len(mine) == 0:
        return step[:1], np.zeros(1, np.float32)
    return mine, np.full(len(mine), world_size / len(step), np.float32)
