"""The host process of a command: restores what Ray changes in it when the command ends.

The host may be a notebook or a scheduler with its own signal handlers, loggers and descriptors.
"""

import faulthandler
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
"""Copies of descriptors 1 and 2 while these write to /dev/null. Global, as descriptors are."""


@contextmanager
def unchanged() -> Iterator[None]:
    """Restore, at the end of a block, what Ray changes.

    These are the levels of loggers, the handlers of SIGTERM and of faults, the exception hook, and
    the state of Python's `random`.
    """
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    handler, state = signal.getsignal(signal.SIGTERM), random.getstate()
    hook, dumps_faults = sys.excepthook, faulthandler.is_enabled()
    try:
        with warnings.catch_warnings():
            # In a notebook without widgets, importing Ray warns about its own progress bars.
            warnings.filterwarnings("ignore", message="IProgress not found")
            logging.getLogger(_WIDGETS).setLevel(logging.CRITICAL)
            yield
    finally:
        random.setstate(state)
        sys.excepthook = hook
        if not dumps_faults:
            faulthandler.disable()
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        if threading.current_thread() is threading.main_thread() and handler is not None:
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def silenced() -> Iterator[None]:
    """Discard all output to descriptors 1 and 2 (Ray also prints from C++), and Ray's logs."""
    if _real_outputs:
        yield
        return
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with _changing:
        _flush()
        _real_outputs.extend(map(os.dup, _OUTPUTS))
        _discard_outputs()
    try:
        yield
    finally:
        with _changing:
            _restore_outputs()
            for copy in _real_outputs:
                os.close(copy)
            _real_outputs.clear()


def audible(listener: Callable[[_Event], None]) -> Callable[[_Event], None]:
    """Wrap a listener so that it can print while the process is silenced."""

    def call(event: _Event) -> None:
        with _changing:
            if not _real_outputs:
                listener(event)
                return
            _restore_outputs()
            try:
                listener(event)
            finally:
                _flush()
                _discard_outputs()

    return call


def _discard_outputs() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in _OUTPUTS:
        os.dup2(null, descriptor)
    os.close(null)


def _restore_outputs() -> None:
    _flush()
    for descriptor, copy in zip(_OUTPUTS, _real_outputs, strict=True):
        os.dup2(copy, descriptor)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()
