"""Tests of what is said when memory runs out, however it shows."""

import pytest
import torch

from distlstm.config import TrainingConfig
from distlstm.stages.training.out_of_memory import is_out_of_memory, memory_advice


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
def test_memory_that_ran_out_is_recognised(failure: Exception) -> None:
    assert is_out_of_memory(failure)
    assert is_out_of_memory(TrainingFailedError(failure))


def test_torch_without_memory_is_recognised() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(10**15)
    assert is_out_of_memory(raised.value)


def test_other_errors_are_not_blamed_on_memory() -> None:
    assert not is_out_of_memory(TrainingFailedError(RuntimeError("size mismatch")))


def test_the_advice_names_the_limit_that_a_corpus_has() -> None:
    advice = memory_advice(TrainingConfig(), 1_000_000)
    assert "training.tokens_per_batch (now 16,384)" in advice
    assert "--workers" in advice
