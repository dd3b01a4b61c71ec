"""Prefetch: a thread produces the next items while the current one is used."""

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

_Item = TypeVar("_Item")
_DEPTH = 2


def prefetch(items: Iterator[_Item]) -> Iterator[_Item]:
    """Yield the same items; a thread produces up to two of them ahead.

    An error of the iterator is raised here, after the items before it. If the consumer stops early,
    the thread stops too.
    """
    ready: queue.Queue[tuple[_Item] | BaseException | None] = queue.Queue(_DEPTH)
    stopped = threading.Event()

    def put(entry: tuple[_Item] | BaseException | None) -> None:
        while not stopped.is_set():
            try:
                ready.put(entry, timeout=0.1)
            except queue.Full:
                continue
            return

    def produce() -> None:
        try:
            for item in items:
                put((item,))
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:
            put(error)

    threading.Thread(target=produce, daemon=True).start()
    try:
        while (entry := ready.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            yield entry[0]
    finally:
        stopped.set()
