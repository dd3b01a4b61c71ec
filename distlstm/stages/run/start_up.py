"""Where the time goes from the start of a command to its first training step."""

import time
from collections.abc import Mapping


class Stopwatch:
    """Seconds of parts of some work that follow one another."""

    def __init__(self, began: float | None = None) -> None:
        """Begin now, or at a time that `time.monotonic` told."""
        self.parts: dict[str, float] = {}
        self._last = time.monotonic() if began is None else began

    def end(self, part: str) -> None:
        """A part ends here, and the next begins."""
        now = time.monotonic()
        self.parts[part] = self.parts.get(part, 0.0) + now - self._last
        self._last = now

    def end_with(self, part: str, others: Mapping[str, float]) -> None:
        """A part and others after it end here; the others have measured themselves."""
        self.end(part)
        self.parts[part] = max(0.0, self.parts[part] - sum(others.values()))
        self.parts |= others
