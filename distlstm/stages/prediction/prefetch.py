"""Doing the next piece of work in a thread while this one is being used."""

import queue
import threading
from collections.abc import Iterator
from typing import TypeVar

_Item = TypeVar("_Item")
_DEPTH = 2


def prefetch(items: Iterator[_Item]) -> Iterator[_Item]:
    """The same items, up to two of which are made ahead, in a thread.

    What the iterator raises is raised here, after the items before it. If the consumer stops early,
    so does the thread.
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
