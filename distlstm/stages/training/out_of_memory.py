"""What to do when a training worker has no memory left."""

import re

from distlstm.config import TrainingConfig
from distlstm.data.batching import step_limits

_SIGNS = re.compile(
    r"out of memory|OutOfMemory|can't allocate memory|Cannot allocate memory|MemoryError"
    r"|running low on memory|memory monitor",
    re.IGNORECASE,
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out: torch's, Ray's or Python's."""
    failures = getattr(error, "worker_failures", {}).values()
    texts = [f"{type(each).__name__}: {each}" for each in (error, *failures)]
    return any(map(_SIGNS.search, texts))


def memory_advice(config: TrainingConfig, num_rows: int) -> str:
    """Which setting to lower, of a training with so many rows."""
    tokens = step_limits(config, num_rows).tokens
    return (
        "A training worker ran out of memory. Lower training.tokens_per_batch (now "
        f"{tokens:,}) or model.hidden_dim, for which the command needs --overwrite, or "
        "--workers, with which it carries on."
    )
