"""Axes: the place of a value between the two ends of an axis, and the ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

Tick = tuple[float, str]
"""Place from 0 to 1, and text."""

_NUM_TICKS, _PADDING, _LOG_FACTOR = 6, 0.04, 30


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """A scale of numbers, linear or logarithmic."""

    title: str
    low: float
    high: float
    is_log: bool = False
    is_whole: bool = False
    """Ticks at whole numbers only."""

    def place(self, value: float) -> float:
        """Place of a value, from 0 (low) to 1 (high)."""
        if self.is_log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)

    @property
    def ticks(self) -> tuple[Tick, ...]:
        """Ticks at round numbers."""
        values = self._decades() if self.is_log else self._steps()
        return tuple((self.place(value), number_text(value)) for value in values)

    def _steps(self) -> list[float]:
        rough = (self.high - self.low) / _NUM_TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * size for size in (1, 2, 5, 10) if power * size >= rough)
        if self.is_whole:
            step = max(1.0, step)
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [float(f"{i * step:.12g}") for i in range(first, last + 1)]

    def _decades(self) -> list[float]:
        low, high = math.log10(self.low), math.log10(self.high)
        digits = (1, 2, 5) if high - low < 2.5 else (1,)
        every = max(1, round((high - low) / _NUM_TICKS)) if len(digits) == 1 else 1
        return [
            float(f"{digit}e{power}")
            for power in range(math.floor(low), math.ceil(high) + 1, every)
            for digit in digits
            if self.low <= float(f"{digit}e{power}") <= self.high
        ]


@dataclass(frozen=True, kw_only=True)
class Categories:
    """A scale of named values, evenly spaced in the order given."""

    title: str
    names: tuple[str, ...]

    def place(self, value: str) -> float:
        """Place of a value, from 0 to 1; a single one is in the middle."""
        return (self.names.index(value) + 0.5) / len(self.names)

    @property
    def ticks(self) -> tuple[Tick, ...]:
        """A tick for every name."""
        return tuple((self.place(name), name) for name in self.names)


def numbers(
    values: Sequence[float], *, title: str, is_log: bool | None = None, is_whole: bool = False
) -> Numbers:
    """A scale that contains all values, with some room around them.

    Args:
        values: at least one finite number.
        title: of the axis, with the unit.
        is_log: whether it is logarithmic; None: if all values are positive and the largest is 30
            times the smallest or more.
        is_whole: whether the values are counts, such as epochs.
    """
    low, high = min(values), max(values)
    if is_log is None:
        is_log = low > 0 and high / low >= _LOG_FACTOR
    is_log = is_log and low > 0
    if low == high:
        room = abs(low) / 2 or 0.5
        low, high = low - room, high + room
    elif is_log:
        factor = (high / low) ** _PADDING
        low, high = low / factor, high * factor
    else:
        room = min((high - low) * _PADDING, 0.5 if is_whole else math.inf)
        low, high = low - room, high + room
    return Numbers(title=title, low=low, high=high, is_log=is_log, is_whole=is_whole)


def number_text(value: float) -> str:
    """A number as short text, for a tick."""
    size = abs(value)
    if size >= 1e9 or 0 < size < 1e-3:
        mantissa, _, power = f"{value:.3g}".partition("e")
        return f"{mantissa}e{int(power)}" if power else mantissa
    if size >= 1e6:
        return f"{value / 1e6:.4g}M"
    return f"{value:,.0f}" if size >= 1e3 else f"{value:.4g}"
