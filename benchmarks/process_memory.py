"""The memory of a command's processes, found by a mark in their environment."""

from pathlib import Path
from typing import NamedTuple


class Memory(NamedTuple):
    """Memory in MiB."""

    together: float
    """Of all processes; shared pages count once (PSS)."""
    worker: float
    """Resident memory of the largest worker."""


def memory_of(mark: str, *, worker: str) -> Memory:
    """Read the memory once; the process names of workers begin with `worker`."""
    together, largest = 0.0, 0.0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() not in (process / "environ").read_bytes():
                continue
            name = (process / "cmdline").read_bytes().decode(errors="replace")
            sizes = (process / "smaps_rollup").read_text().split("\n")
        except OSError:  # the process has ended
            continue
        kib = {line.split(":")[0]: int(line.split()[1]) for line in sizes[1:] if line}
        together += kib["Pss"] / 1024
        if name.startswith(worker):
            largest = max(largest, kib["Rss"] / 1024)
    return Memory(together, largest)
