"""Progress of a prediction run: rows, speed and time left, from the reports of its workers."""

import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from distlstm.data.units import Unit
from distlstm.stages.prediction.parts import Parts
from distlstm.stages.run.events import RowsPredicted

_SECONDS_OF_SPEED = 30.0


@dataclass
class Progress:
    """Progress of a worker on its current bundle."""

    rows_done: float = 0.0
    complete_rows: int = 0
    """Number of rows of the units that were read to their end."""
    complete_bytes: int = 0
    """Size of those units on disk."""


@dataclass(kw_only=True)
class Meter:
    """Sums the finished and the running bundles, and estimates the time left."""

    num_bytes: int
    """Size of all units to predict, on disk."""
    parts_total: int
    parts_reused: int
    parts: int = 0
    rows: int = 0
    tokens: int = 0
    rows_by_linear_model: int = 0
    rows_without_prediction: Counter[str] = field(default_factory=Counter)
    bytes_done: int = 0
    rows_in_all: float | None = None
    """The latest estimate of the total; kept here because a restarted worker loses its counts."""
    samples: deque[tuple[float, int]] = field(default_factory=deque)
    """Times and numbers of predicted rows, of the last half minute."""

    def finished(self, units: Sequence[Unit], parts: Parts) -> None:
        """Count a finished bundle and its parts."""
        for part in parts:
            self.rows += part.rows_out
            self.rows_without_prediction.update(part.rows_without_prediction)
        self.parts += len(parts)
        self.tokens += parts.sums.num_tokens
        self.rows_by_linear_model += parts.sums.num_by_partner
        self.bytes_done += sum(unit.num_bytes for unit in units)

    def look(
        self,
        under_way: Sequence[Progress],
        *,
        workers: int = 0,
        wanted: int = 0,
        waiting: int = 0,
        now: float | None = None,
    ) -> RowsPredicted:
        """The state of the run, including the bundles `under_way`.

        Args:
            under_way: the progress of the running bundles.
            workers: the number of workers at work.
            wanted: the number of workers that there is work for.
            waiting: the number of bundles that no worker has begun.
            now: the time in seconds, of any clock.
        """
        rows = self.rows + int(sum(progress.rows_done for progress in under_way))
        rows = max(rows, self.samples[-1][1] if self.samples else 0)
        speed = self._speed(rows, time.monotonic() if now is None else now)
        known_rows = self.rows + sum(progress.complete_rows for progress in under_way)
        known_bytes = self.bytes_done + sum(progress.complete_bytes for progress in under_way)
        if known_rows and known_bytes and self.num_bytes:
            self.rows_in_all = known_rows / known_bytes * self.num_bytes
        share = seconds_left = None
        if self.rows_in_all is not None:
            share = min(1.0, rows / self.rows_in_all)
            seconds_left = (self.rows_in_all - rows) / speed if speed else None
        return RowsPredicted(
            rows=rows,
            rows_per_second=speed,
            share=share,
            seconds_left=None if seconds_left is None else max(0.0, seconds_left),
            parts=self.parts,
            parts_reused=self.parts_reused,
            parts_total=self.parts_total,
            workers=workers,
            workers_wanted=wanted,
            bundles_waiting=waiting,
            tokens=self.tokens,
            rows_by_linear_model=self.rows_by_linear_model,
            rows_without_prediction=dict(self.rows_without_prediction),
        )

    def _speed(self, rows: int, now: float) -> float:
        """Rows per second over the last half minute, not counting the time before the first row."""
        self.samples.append((now, rows))
        while len(self.samples) > 2 and (
            now - self.samples[0][0] > _SECONDS_OF_SPEED or self.samples[1][1] == 0
        ):
            self.samples.popleft()
        (start, before), (end, after) = self.samples[0], self.samples[-1]
        return (after - before) / (end - start) if end > start else 0.0
