"""Recognises that a training worker ran out of memory, and advises what to lower."""

import re

from distlstm.config import TrainingConfig
from distlstm.data.batching import step_limits

_SIGNS = re.compile(
    r"out of memory|OutOfMemory|can't allocate memory|Cannot allocate memory|MemoryError"
    r"|running low on memory|memory monitor",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch, Ray or Python means that memory ran out."""
    failures = getattr(error, "worker_failures", {}).values()
    texts = [f"{type(each).__name__}: {each}" for each in (error, *failures)]
    return any(map(_SIGNS.search, texts))


def memory_advice(config: TrainingConfig, num_rows: int) -> str:
    """The message for the user, for a training on `num_rows` rows."""
    tokens = step_limits(config, num_rows).tokens
    return (
        "A training worker ran out of memory. Resume with fewer --workers, or start again with "
        f"--overwrite and a lower training.tokens_per_batch (now {tokens:,}) or model.hidden_dim."
    )
