"""The plan of an epoch: which rows make up each step, as a pure function.

Rows are shuffled, sorted by length inside windows, and cut into steps of like length, so that
little is padded; then the steps are shuffled. Every rank computes the same plan and takes its
own rows of each step, so all ranks take the same number of steps, and the rows of a step, and
with them its gradient, do not depend on the number of ranks.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from distlstm.config import TrainingConfig

_STEPS_PER_WINDOW = 50


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """How much goes through a model at once, at the most."""

    rows: int
    tokens: int
    """Padded ones; a single longer row goes alone."""


INFERENCE_LIMITS = {
    "cpu": BatchLimits(tokens=20_480, rows=256),
    "cuda": BatchLimits(tokens=1_048_576, rows=8_192),
}
"""Of a batch without a gradient, by type of device."""


def step_limits(config: TrainingConfig, num_rows: int) -> BatchLimits:
    """The limits of a training step, over all workers: as configured, or as the corpus has it.

    A small corpus is seen few times, and would be learnt in too few steps: so they have a hundredth
    of its rows, from 16 to 128. A large one has steps to spare, and larger ones are faster,
    above all with several workers, which meet after each: from 256,000 rows on they have a
    two-thousandth, up to 256. Tokens are 64 a row, at least 8,192.
    """
    small, large = min(128, max(16, num_rows // 100)), min(256, num_rows // 2_000)
    rows = config.rows_per_batch or max(small, large)
    tokens = config.tokens_per_batch or max(8_192, 64 * rows)
    return BatchLimits(rows=rows, tokens=tokens)


def plan_epoch(
    lengths: np.ndarray, limits: BatchLimits, *, seed: int, epoch: int
) -> list[np.ndarray]:
    """The steps of one training epoch: row indices, every row in exactly one step.

    Indices are int32 where the rows are few enough for it, int64 otherwise: of many rows the plan
    is what takes most memory.

    Args:
        lengths: tokens of each row, [rows].
        limits: of a step.
        seed: with `epoch`, decides the order.
        epoch: from 0.
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
        size = max(1, int(np.searchsorted(padded, limits.tokens, side="right")))
        yield rows[start : start + size]
        start += size


def rows_of_rank(step: np.ndarray, *, rank: int, world_size: int) -> tuple[np.ndarray, np.ndarray]:
    """A rank's rows of a step, and their weights (float32, [rows]).

    The ranks' weighted sums, averaged over the ranks, are the mean over the step. A
    rank for which a short step has no row repeats one with weight 0, so that it takes the step.
    """
    mine = step[rank::world_size]
    if len(mine) == 0:
        return step[:1], np.zeros(1, np.float32)
    return mine, np.full(len(mine), world_size / len(step), np.float32)
