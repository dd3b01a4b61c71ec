"""Tests of how many workers a command may have."""

import pytest

from distlstm.errors import UserError
from distlstm.stages.run.session import Capacity
from distlstm.worker_range import WorkerRange

SOME = WorkerRange(3, 8)


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
