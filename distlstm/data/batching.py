"""The plan of an epoch: which rows make up each step, as a pure function.

Rows are shuffled, sorted by length inside windows, and cut into steps of like length, so that
little is padded; then the steps are shuffled. Every rank computes the same plan and takes its
own rows of each step, so all ranks take the same number of steps, and the rows of a step, and
with them its gradient, do not depend on the number of ranks.
"""

from collections.abc import Iterator

import numpy as np

_STEPS_PER_WINDOW = 50
_STEPS_OF_A_SMALL_EPOCH, _FEWEST_ROWS, _MOST_ROWS = 100, 16, 128


def rows_per_step(num_rows: int) -> int:
    """Rows of a step, if nobody says how many: what makes an epoch of 100 steps, from 16 to 128.

    A small corpus is seen few times, and would be learnt in too few steps.
    """
    return min(_MOST_ROWS, max(_FEWEST_ROWS, num_rows // _STEPS_OF_A_SMALL_EPOCH))


def plan_epoch(
    lengths: np.ndarray, *, tokens_per_batch: int, rows_per_batch: int, seed: int, epoch: int
) -> list[np.ndarray]:
    """The steps of one training epoch: row indices, every row in exactly one step.

    Indices are int32 where the rows are few enough for it, int64 otherwise: of many rows the plan
    is what takes most memory.

    Args:
        lengths: tokens of each row, [rows].
        tokens_per_batch: padded tokens of a step at the most (a single longer row is a step).
        rows_per_batch: rows of a step at the most.
        seed: with `epoch`, decides the order.
        epoch: from 0.
    """
    rng = np.random.default_rng((seed, epoch))
    order = np.arange(len(lengths), dtype=np.int32 if len(lengths) < 2**31 else np.int64)
    rng.shuffle(order)
    window = rows_per_batch * _STEPS_PER_WINDOW
    steps = [
        step
        for start in range(0, len(order), window)
        for step in cut_by_length(
            order[start : start + window],
            lengths,
            tokens_per_batch=tokens_per_batch,
            rows_per_batch=rows_per_batch,
        )
    ]
    return [steps[i] for i in rng.permutation(len(steps))]


def cut_by_length(
    rows: np.ndarray, lengths: np.ndarray, *, tokens_per_batch: int, rows_per_batch: int
) -> Iterator[np.ndarray]:
    """Sort rows by length and cut them into batches within both limits."""
    rows = rows[np.argsort(lengths[rows], kind="stable")]
    ordered = lengths[rows].astype(np.int64)
    counts = np.arange(1, rows_per_batch + 1)
    start = 0
    while start < len(rows):
        following = ordered[start : start + rows_per_batch]
        padded = following * counts[: len(following)]
        size = max(1, int(np.searchsorted(padded, tokens_per_batch, side="right")))
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
