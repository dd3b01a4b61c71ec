"""Tests of how many trials run at once, and of the arithmetic that refuses what does not fit."""

import pytest

from distlstm.config import load_config
from distlstm.errors import UserError
from distlstm.stages.run.session import Capacity, Resources
from distlstm.stages.tuning.resources import trial_resources, trials_at_once
from distlstm.worker_range import WorkerRange


def at_once(
    *settings: str,
    cpus: int = 8,
    gpus: int = 0,
    workers: int | str | None = None,
    cpus_per_worker: int = 1,
    concurrency: int | None = None,
) -> int:
    capacity = Capacity(
        num_cpus=cpus,
        num_gpus=gpus,
        cpus_per_worker=cpus_per_worker,
        use_gpu=gpus > 0,
        max_workers=cpus // cpus_per_worker,
    )
    trial = trial_resources(capacity, load_config(None, settings).training)
    wanted = None if workers is None else WorkerRange.of(workers)
    resources = Resources(workers=wanted, cpus_per_worker=cpus_per_worker)
    return trials_at_once(capacity, trial, resources=resources, concurrency=concurrency)


def test_as_many_trials_as_fit_or_as_were_asked_for() -> None:
    assert at_once() == 8
    assert at_once(cpus_per_worker=3) == 2
    assert at_once("training.workers_per_trial=2") == 4
    assert at_once("training.workers_per_trial=2", workers=5) == 2
    assert at_once(workers=3) == 3
    assert at_once(workers=3, concurrency=2) == 2


def test_of_a_range_of_workers_only_the_least_must_fit() -> None:
    assert at_once(workers="2:20") == 8
    assert at_once(workers="2:5") == 5
    assert at_once("training.workers_per_trial=3", workers="1:20") == 2
    with pytest.raises(UserError, match="9 trials at once"):
        at_once(workers="9:20")


def test_gpus_can_be_shared_by_trials() -> None:
    assert at_once(gpus=1) == 1
    assert at_once("training.gpus_per_trial=0.25", gpus=1) == 4
    assert at_once("training.gpus_per_trial=0.1", gpus=1, cpus=64) == 10
    assert at_once("training.gpus_per_trial=0.25", gpus=1, cpus=2) == 2
    assert at_once("training.gpus_per_trial=2", "training.workers_per_trial=2", gpus=4) == 2


def test_a_trial_with_ray_train_inside_holds_no_cpu_itself() -> None:
    capacity = Capacity(num_cpus=8, num_gpus=1, cpus_per_worker=2, use_gpu=True, max_workers=1)
    two = load_config(None, ["training.workers_per_trial=2", "training.gpus_per_trial=0.5"])
    trial = trial_resources(capacity, two.training)
    assert trial.of_tune_process == {"memory": 1}
    assert trial.of_worker == {"CPU": 2, "GPU": 0.25}
    one = trial_resources(capacity, load_config(None).training)
    assert one.of_tune_process == {"cpu": 2, "gpu": 1.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"concurrency": 9}, "9 trials at once, of 1 workers of 1 CPUs each, .* enough for 8"),
        ({"cpus_per_worker": 16}, "1 trials at once, of 1 workers of 16 CPUs .* enough for 0"),
        ({"gpus": 2, "concurrency": 3}, "1 CPUs and 1 GPUs each, .* 8 CPUs and 2 GPUs"),
        ({"workers": 9}, "9 trials at once"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_arithmetic(
    options: dict[str, int], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        at_once(**options)
