"""Measures the phases from the start of a command to its first training step."""

import time
from collections.abc import Mapping


class Stopwatch:
    """Measures the seconds of consecutive parts of some work."""

    def __init__(self, began: float | None = None) -> None:
        """Begin now, or at an earlier time of `time.monotonic`."""
        self.parts: dict[str, float] = {}
        self._last = time.monotonic() if began is None else began

    def end(self, part: str) -> None:
        """End a part now, and begin the next one."""
        now = time.monotonic()
        self.parts[part] = self.parts.get(part, 0.0) + now - self._last
        self._last = now

    def end_with(self, part: str, others: Mapping[str, float]) -> None:
        """End a part and the `others` after it now; the others were measured elsewhere."""
        self.end(part)
        self.parts[part] = max(0.0, self.parts[part] - sum(others.values()))
        self.parts |= others
