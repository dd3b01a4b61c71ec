"""Ray Train's list of checkpoints on a disk, which survives a kill at any moment.

Ray writes the list over the earlier one. If its process is killed meanwhile, the list is cut short,
and Ray can no longer restore the training. So each list is copied once it is whole; the checkpoints
of the last copy still exist then, as Ray deletes them after it has written the next list.
"""

import json
from contextlib import suppress
from typing import Any

from ray.train.v2._internal.execution.callback import ReportCallback

from distlstm.storage import Directory

_LIST, _COPY = "checkpoint_manager_snapshot.json", "last_snapshot.json"


class Snapshot(ReportCallback):  # type: ignore[misc]  # Ray has no types
    """Copies the list after every checkpoint; runs in Ray Train's controller."""

    def __init__(self, run: Directory) -> None:
        """`run` is the directory of Ray Train for this training."""
        self.run = run

    def after_report(self, training_report: Any, metrics: Any) -> None:
        """Copy the list, which Ray has just written. In an object store it appears whole anyway."""
        del training_report, metrics
        if self.run.is_local:
            with suppress(OSError):  # the copy is one checkpoint older, then
                self.run.write(_COPY, self.run.read_text(_LIST))


def mend_snapshot(run: Directory) -> None:
    """Put the copy in the place of a list that was cut short; Ray Train must not be running.

    Without a copy there is no earlier checkpoint, and the training starts anew.
    """
    if not run.is_local or not run.exists(_LIST) or _is_whole(run.read_text(_LIST)):
        return
    if run.exists(_COPY):
        run.write(_LIST, run.read_text(_COPY))
    else:
        run.delete([_LIST])


def _is_whole(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True
