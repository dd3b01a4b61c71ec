"""The growth of a cost: its time and memory at two sizes.

Times are processor times of all threads, as other programs may share the machine.
"""

import math
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

RUNS = 3
Work = Callable[[], object]


@dataclass(frozen=True)
class Growth:
    """A cost at a small and a large size."""

    sizes: tuple[int, int]
    seconds: tuple[float, float]
    peaks: tuple[float, float]
    """Most bytes of Python objects and NumPy arrays in memory at once."""

    @property
    def exponent(self) -> float:
        """The power of the size with which the time grows: 1 is linear, 2 quadratic."""
        return math.log(self.seconds[1] / self.seconds[0]) / math.log(self.sizes[1] / self.sizes[0])

    @property
    def seconds_each(self) -> float:
        """Time for one more item."""
        return self._each(self.seconds)

    @property
    def bytes_each(self) -> float:
        """Memory for one more item; 0 if the peak is of something else."""
        return max(0.0, self._each(self.peaks))

    def _each(self, values: tuple[float, float]) -> float:
        return (values[1] - values[0]) / (self.sizes[1] - self.sizes[0])


def growth(prepare: Callable[[int], Work], sizes: tuple[int, int]) -> Growth:
    """Measure what `prepare(size)` returns, at both sizes."""
    small, large = (prepare(size) for size in sizes)
    return Growth(sizes, (seconds(small), seconds(large)), (_peak(small), _peak(large)))


def seconds(work: Work) -> float:
    """The shortest of several times."""
    times = []
    for _ in range(RUNS):
        started = time.process_time()
        work()
        times.append(time.process_time() - started)
    return min(times)


def _peak(work: Work) -> float:
    tracemalloc.start()
    work()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak
