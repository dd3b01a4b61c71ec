"""The sockets on which processes listen, by the tables of Linux in /proc."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.nodes import descendants

_LISTENS = "0A"
LOOPBACK = ("0100007F", "0" * 16 + "FFFF0000" + "0100007F", "0" * 24 + "01000000")
"""As in /proc/net/tcp and tcp6."""


class Listener(NamedTuple):
    """A listening socket."""

    command: str
    """The name of its process."""
    address: str
    """Hexadecimal, as in /proc."""
    port: int


def listeners(root: int) -> set[Listener]:
    """The listening sockets of a process and those below it."""
    owners = {}
    try:
        for pid in (root, *descendants(root)):
            owners |= dict.fromkeys(_inodes(pid), Path(f"/proc/{pid}/comm").read_text().strip())
    except OSError:
        return set()  # a process ended meanwhile: the next look is better
    rows = [
        line.split()
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
    ]
    return {
        Listener(owners[row[9]], address, int(port, 16))
        for row in rows
        for address, port in [row[1].split(":")]
        if row[3] == _LISTENS and row[9] in owners
    }


def _inodes(pid: int) -> Iterator[str]:
    """The sockets of a process."""
    for name in Path(f"/proc/{pid}/fd").iterdir():
        target = str(name.readlink())
        if target.startswith("socket:["):
            yield target[len("socket:[") : -1]
