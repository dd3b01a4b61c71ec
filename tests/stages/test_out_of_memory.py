"""Tests of what is said when memory runs out, however it shows."""

import pytest
import torch

from distlstm.stages.out_of_memory import memory_advice


class TrainingFailedError(Exception):
    """As Ray Train's error: it carries those of the workers."""

    def __init__(self, failure: Exception) -> None:
        super().__init__("Training failed due to worker errors")
        self.worker_failures = {1: failure}


@pytest.mark.parametrize(
    "failure",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("Task was killed due to the node running low on memory."),
    ],
)
def test_memory_that_ran_out_is_answered_with_what_to_lower(failure: Exception) -> None:
    for error in (failure, TrainingFailedError(failure)):
        advice = memory_advice(error, tokens_per_batch=8192) or ""
        assert "training.tokens_per_batch (now 8,192)" in advice
        assert "--workers" in advice


def test_torch_without_memory_is_recognised() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**15)
    assert memory_advice(raised.value, tokens_per_batch=1)


def test_other_errors_are_not_blamed_on_memory() -> None:
    assert (
        memory_advice(TrainingFailedError(RuntimeError("size mismatch")), tokens_per_batch=1)
        is None
    )
