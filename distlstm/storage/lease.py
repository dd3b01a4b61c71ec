"""Sole use of a directory in an object store: a lease that its holder renews.

The lease is an object. Its holder replaces it every few seconds, on condition that it is unchanged.
Another command that finds it watches it: if it changes, its holder is alive. If it does not change
for the lease's duration, its holder is dead, and the command takes the lease, on condition that it
is unchanged. No clocks of two machines are compared.
"""

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from distlstm.errors import RunError, UserError
from distlstm.storage.base import Version
from distlstm.storage.object_store import ObjectStorage

RENEWAL_SECONDS = 4.0
DURATION_SECONDS = 20.0
_PROCESS = ("boot", "namespace", "pid", "started")


def _ignore(text: str) -> None:
    """Nobody reads why a command waits."""


class Lease:
    """Sole use of a directory for a block: `with Lease(storage) as lease: ... lease.check()`.

    Entering raises a UserError if another command is at work on the directory.
    """

    def __init__(
        self,
        storage: ObjectStorage,
        name: str = "_lock",
        *,
        renewal: float = RENEWAL_SECONDS,
        duration: float = DURATION_SECONDS,
        on_wait: Callable[[str], None] = _ignore,
    ) -> None:
        self._storage, self._name = storage, name
        self._renewal, self._duration, self._on_wait = renewal, duration, on_wait
        self._token, self._count = uuid.uuid4().hex, 0
        self._version: Version = {}
        self._renewed = 0.0  # before the request, so that the lease lasts longer than we think
        self._is_lost = False
        self._turn = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lease; wait for at most its duration if its holder does not answer.

        Raises:
            UserError: another command is at work on the directory.
        """
        while not self._take():
            pass
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Check that no other command can be at work: call it before what must not happen twice.

        Raises:
            RunError: the lease was lost, as this process or its network stood still for too long.
        """
        if not self._is_lost and time.monotonic() - self._renewed > self._duration / 2:
            self._renew()
        if self._is_lost:
            raise RunError(
                f"This command lost its lock on {self._storage.location}: it stood still, or could "
                "not reach the object store, and another command took over. What is finished is "
                "kept."
            )

    def release(self) -> None:
        """Give the lease back, if it is still ours."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        try:
            self._renew()
            if not self._is_lost:
                self._storage.delete([self._name])
        except OSError:
            return  # it ends by itself

    def is_held(self) -> bool:
        """Whether another, living command has it; it may take the lease's duration to see."""
        found = self._found()
        if found is None or self._is_of_dead_process():
            return False
        try:
            self._is_abandoned(found)
        except UserError:
            return True
        return False

    def _take(self) -> bool:
        """Whether the lease was taken; False if it changed hands meanwhile."""
        found = self._found()
        if found is not None and not (self._is_of_dead_process() or self._is_abandoned(found)):
            return False
        now = time.monotonic()
        taken = self._storage.put_if(self._name, self._content(), found)
        self._version, self._renewed = taken or {}, now
        return taken is not None

    def _found(self) -> Version | None:
        try:
            return self._storage.version(self._name)
        except FileNotFoundError:
            return None

    def _is_abandoned(self, version: Version) -> bool:
        """Watch a lease for its duration; False if it was given back."""
        self._on_wait(
            f"{self._storage.location} is locked. Waiting for up to {self._duration:g} s to see "
            "whether the command that locked it is still alive."
        )
        until = time.monotonic() + self._duration
        while time.monotonic() < until:
            time.sleep(self._renewal / 4)
            try:
                if self._storage.version(self._name) != version:
                    raise UserError(
                        f"Another command is at work on {self._storage.location}. Wait for it to "
                        "end, or choose another --output."
                    )
            except FileNotFoundError:
                return False
        return True

    def _is_of_dead_process(self) -> bool:
        """Whether the holder was a process of this machine that has ended."""
        try:
            holder = json.loads(self._storage.read(self._name))
            process = {part: holder[part] for part in _PROCESS}
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False
        here = _process(os.getpid())
        if not here or any(process[part] != here[part] for part in ("boot", "namespace")):
            return False
        return _process(process["pid"]) != process

    def _content(self) -> bytes:
        self._count += 1
        holder = {"token": self._token, "renewal": self._count, "host": socket.gethostname()}
        return json.dumps(holder | _process(os.getpid())).encode()

    def _keep(self) -> None:
        while not self._ended.wait(self._renewal) and not self._is_lost:
            try:
                self._renew()
            except OSError:  # `check` tries again
                continue

    def _renew(self) -> None:
        with self._turn:
            if self._is_lost:
                return
            now = time.monotonic()
            version = self._storage.put_if(self._name, self._content(), self._version)
            self._is_lost = version is None
            self._version, self._renewed = version or {}, now


def _process(pid: int) -> dict[str, Any]:
    """What tells a living process from all others since the start of its machine; else empty."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if state in "ZX":
            return {}
        return {
            "boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            "namespace": Path("/proc/self/ns/pid").readlink().name,
            "pid": pid,
            "started": int(fields[18]),
        }
    except (OSError, ValueError):
        return {}
