"""What to do when a training worker has no memory left."""

import re

_SIGNS = re.compile(
    r"out of memory|OutOfMemory|can't allocate memory|Cannot allocate memory|MemoryError"
    r"|running low on memory|memory monitor",
    re.IGNORECASE,
)


def memory_advice(error: BaseException, *, tokens_per_batch: int) -> str | None:
    """Which setting to lower, if an error says that memory ran out: torch's, Ray's or Python's."""
    failures = getattr(error, "worker_failures", {}).values()
    texts = [f"{type(each).__name__}: {each}" for each in (error, *failures)]
    if not any(map(_SIGNS.search, texts)):
        return None
    now = f"now {tokens_per_batch:,}" if tokens_per_batch else "by default 8,192 or more"
    return (
        f"A training worker ran out of memory. Lower training.tokens_per_batch ({now}), for which "
        "the command needs --overwrite, or --workers, with which it carries on."
    )
