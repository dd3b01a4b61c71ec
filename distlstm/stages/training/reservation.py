"""The CPUs that Ray Train reserves for a training, and what it does while there are none.

Ray's autoscaling coordinator keeps the reservation of a command that was killed for three minutes,
and elastic trainings wait for what is reserved: the same command would wait for itself.
"""

import time
from contextlib import suppress
from typing import Any

import ray
from ray.data._internal.cluster_autoscaler.default_autoscaling_coordinator import (
    get_or_create_autoscaling_coordinator,
)
from ray.train.v2._internal.execution.callback import ControllerCallback
from ray.train.v2._internal.execution.controller.state import (
    InitializingState,
    ReschedulingState,
    RestartingState,
)

from distlstm.storage import Directory

_FILE = "reservation.txt"
_PATIENCE_SECONDS = 5.0
_SECONDS_BETWEEN_LOOKS = 0.2
_WAITING = (InitializingState, ReschedulingState, RestartingState)


class Reservation(ControllerCallback):  # type: ignore[misc]  # Ray has no types
    """Ends the reservation of the earlier run of a training; runs in Ray Train's controller."""

    def __init__(self, run: Directory) -> None:
        """`run` is the directory of Ray Train for this training, which only one command uses."""
        self.run = run

    def after_controller_start(self, train_run_context: Any) -> None:
        """End the earlier reservation, and note the name of this one."""
        with suppress(OSError, ray.exceptions.RayError):  # it ends by itself, only later
            earlier = self.run.read_text(_FILE) if self.run.exists(_FILE) else None
            self.run.write(_FILE, f"train-{train_run_context.run_id}")
            if earlier is not None:
                coordinator = get_or_create_autoscaling_coordinator()
                ended = coordinator.cancel_request.remote(requester_id=earlier)
                ray.get(ended, timeout=_PATIENCE_SECONDS)

    def after_controller_state_update(self, previous_state: Any, current_state: Any) -> None:
        """Pause between two looks for CPUs, as the controller itself looks without end."""
        if previous_state is current_state and isinstance(current_state, _WAITING):
            time.sleep(_SECONDS_BETWEEN_LOOKS)
