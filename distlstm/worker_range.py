"""`--workers`: how many worker processes a command may have."""

import re
from dataclasses import dataclass

from distlstm.errors import UserError

_RANGE = re.compile(r"(\d+):(\d+)")


@dataclass(frozen=True)
class WorkerRange:
    """The least and the most workers.

    A command starts with as many as fit, between the two. If nodes are lost it goes on with fewer;
    if nodes join it grows again, up to the most. Where an autoscaler adds nodes, commands that
    predict start with fewer than the least, and wait for the first.
    """

    least: int
    most: int

    @classmethod
    def of(cls, value: object) -> "WorkerRange":
        """`4`, `"2:8"`, `(2, 8)` or a WorkerRange; one number is both least and most.

        Raises:
            UserError: it is none of these, the most is 0, or less than the least.
        """
        least, most = _bounds(value)
        if most < max(1, least):
            raise UserError(
                f"workers is {value!r}; it must be a whole number, at least 1, or a range such as "
                "2:8, the least and the most."
            )
        return cls(least, most)

    @classmethod
    def parse(cls, text: str) -> "WorkerRange":
        """`4` or `2:8`, as written in the option; see `of`."""
        return cls.of(int(text) if text.isascii() and text.isdecimal() else text)

    def __str__(self) -> str:
        """As it is written in the option."""
        return f"{self.least}" if self.least == self.most else f"{self.least}:{self.most}"


def _bounds(value: object) -> tuple[int, int]:
    """The two numbers; (0, 0) for what is no range."""
    if isinstance(value, WorkerRange):
        return value.least, value.most
    if type(value) is int:
        return value, value
    if isinstance(value, tuple) and [type(each) for each in value] == [int, int]:
        return value
    found = _RANGE.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None:
        return 0, 0
    return int(found[1]), int(found[2])
