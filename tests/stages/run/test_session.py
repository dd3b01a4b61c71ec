"""Tests of how many workers a command may have, and of Ctrl-C while it waits for Ray."""

import os
import signal
import threading
import time

import pytest
import ray

from distlstm.errors import UserError
from distlstm.stages.run.session import Capacity, run_interruptibly
from distlstm.worker_range import WorkerRange

SOME = WorkerRange(3, 8)


class TrainController:
    """An actor that works for long, and has the name of Ray Train's."""

    def run(self) -> None:
        time.sleep(600)


def capacity(num_cpus: int, *, can_grow: bool) -> Capacity:
    return Capacity(
        num_cpus=num_cpus,
        num_gpus=0,
        cpus_per_worker=1,
        use_gpu=False,
        max_workers=num_cpus,
        can_grow=can_grow,
    )


def test_a_command_that_waits_may_ask_an_autoscaler_for_workers_that_do_not_fit() -> None:
    assert capacity(0, can_grow=True).workers(SOME, default=1, waits=True) == SOME


@pytest.mark.parametrize(("can_grow", "waits"), [(False, True), (True, False), (False, False)])
def test_otherwise_the_least_workers_must_fit(can_grow: bool, waits: bool) -> None:
    assert capacity(3, can_grow=can_grow).workers(SOME, default=1, waits=waits) == SOME
    with pytest.raises(UserError, match="3 workers of 1 CPUs each do not fit: Ray has 2 CPUs"):
        capacity(2, can_grow=can_grow).workers(SOME, default=1, waits=waits)


def test_nodes_are_asked_for_only_if_the_user_gives_a_number_of_workers() -> None:
    with pytest.raises(UserError, match="To ask the autoscaler for nodes, give --workers"):
        capacity(0, can_grow=True).workers(None, default=4, waits=True)


@pytest.mark.ray
@pytest.mark.usefixtures("ray_cluster")
def test_after_ctrl_c_no_thread_waits_for_ray() -> None:
    ended = threading.Event()

    def work() -> None:
        controller = ray.remote(num_cpus=0)(TrainController).remote()
        try:
            ray.get(controller.run.remote())
        finally:
            ended.set()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    ctrl_c = threading.Timer(3.0, os.kill, (os.getpid(), signal.SIGINT))
    ctrl_c.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            run_interruptibly(work)
    finally:
        ctrl_c.join()
        signal.signal(signal.SIGINT, before)
    assert ended.is_set()
