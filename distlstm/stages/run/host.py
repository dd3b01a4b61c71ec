"""The process that a command runs in: what Ray changes in it is put back when the command ends.

The process may be a notebook's or a scheduler's, which has signal handlers, loggers and descriptors
of its own.
"""

import logging
import os
import random
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

_Event = TypeVar("_Event")
_WIDGETS = "ray.widgets.util"
_LOGGERS = ("ray", "ray.data", "ray.train", "ray.tune", _WIDGETS, "optuna")
_OUTPUTS = (1, 2)
_changing = threading.RLock()
_real_outputs: list[int] = []
"""Copies of descriptors 1 and 2 while they lead nowhere; a process has only one pair of them."""


@contextmanager
def unchanged() -> Iterator[None]:
    """Put back, at the end of a block, what Ray changes.

    That is the levels of loggers, the handler of SIGTERM, and the state of Python's `random`.
    """
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    handler, state = signal.getsignal(signal.SIGTERM), random.getstate()
    try:
        with warnings.catch_warnings():
            # In a notebook without widgets, Ray's import would give advice about its own output.
            warnings.filterwarnings("ignore", message="IProgress not found")
            logging.getLogger(_WIDGETS).setLevel(logging.CRITICAL)
            yield
    finally:
        random.setstate(state)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def silenced() -> Iterator[None]:
    """Discard what Ray writes to descriptors 1 and 2, from C++ too, and what its loggers log."""
    if _real_outputs:
        yield
        return
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _changing:
        _flush()
        _real_outputs.extend(map(os.dup, _OUTPUTS))
        _lead_nowhere()
    try:
        yield
    finally:
        with _changing:
            _lead_back()
            for copy in _real_outputs:
                os.close(copy)
            _real_outputs.clear()


def audible(listener: Callable[[_Event], None]) -> Callable[[_Event], None]:
    """The listener, which may print while the rest of the process is silenced."""

    def call(event: _Event) -> None:
        with _changing:
            if not _real_outputs:
                listener(event)
                return
            _lead_back()
            try:
                listener(event)
            finally:
                _flush()
                _lead_nowhere()

    return call


def _lead_nowhere() -> None:
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in _OUTPUTS:
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _lead_back() -> None:
    _flush()
    for descriptor, copy in zip(_OUTPUTS, _real_outputs, strict=True):
        os.dup2(copy, descriptor)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
