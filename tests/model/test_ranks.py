"""Two real processes over gloo against one: the gradients of a step, and the check of weights."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.functional import cross_entropy

from distlstm.config import ModelConfig
from distlstm.data.batching import rows_of_rank
from distlstm.errors import RunError
from distlstm.model.batch import Batch
from distlstm.model.classifier import Classifier
from distlstm.model.data_parallel import all_reduce, average, share_weights
from distlstm.model.loop import Worker, check_same_weights
from distlstm.model.row_adamw import RowAdamW
from distlstm.model.training import apply_rows

pytestmark = pytest.mark.slow
NUMBERS_OF_ROWS = (1, 2, 13, 16)


def classifier() -> Classifier:
    torch.manual_seed(0)
    model = Classifier(ModelConfig(embedding_dim=8, hidden_dim=8), vocab_size=20, num_labels=2)
    return model.eval()


def gradient(model: Classifier, num_rows: int, *, rank: int, world_size: int) -> np.ndarray:
    """Of one step over so many rows, as this rank sees it after the average."""
    rng = np.random.default_rng(num_rows)
    texts = [rng.integers(2, 20, rng.integers(1, 9)).astype(np.int32) for _ in range(num_rows)]
    labels = rng.integers(0, 2, num_rows)
    rows, weights = rows_of_rank(np.arange(num_rows), rank=rank, world_size=world_size)
    batch = Batch.of_rows(
        np.concatenate([texts[row] for row in rows]),
        np.array([len(texts[row]) for row in rows]),
        label_ids=labels[rows],
        weights=weights,
        step_tokens=np.concatenate(texts),
    )
    model.zero_grad()
    used = RowAdamW(model.embedding.weight, betas=(0.9, 0.99), weight_decay=0).take(batch.used_ids)
    used.weights.requires_grad_()
    logits = apply_rows(model, used, batch)
    losses = cross_entropy(logits, batch.label_ids, reduction="none")
    (losses * batch.weights).sum().backward()
    found = [p.grad for p in (*model.parameters(), used.weights) if p.grad is not None]
    if world_size > 1:
        average(found)
    return torch.cat([part.ravel() for part in found]).numpy()


def run_rank(rank: int, directory: str) -> None:
    """In a process of its own: write the gradients, and whether differing weights are noticed."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{directory}/meeting", rank=rank, world_size=2
    )
    model = classifier()
    with torch.no_grad():
        model.output.bias += rank
    share_weights(model)
    found = {str(n): gradient(model, n, rank=rank, world_size=2) for n in NUMBERS_OF_ROWS}
    worker = Worker(
        rank=rank, world_size=2, all_reduce=partial(all_reduce, device=torch.device("cpu"))
    )
    check_same_weights(model, worker, 1)
    with torch.no_grad():
        model.output.bias += 0.01 * rank
    try:
        check_same_weights(model, worker, 2)
        found["noticed"] = np.array(0)
    except RunError:
        found["noticed"] = np.array(1)
    np.savez(f"{directory}/{rank}.npz", **found)
    dist.destroy_process_group()


def test_two_processes_have_the_gradients_of_one_and_notice_weights_that_differ(
    tmp_path: Path,
) -> None:
    mp.spawn(run_rank, args=(str(tmp_path),), nprocs=2)
    model = classifier()
    for rank in range(2):
        with np.load(tmp_path / f"{rank}.npz") as found:
            for n in NUMBERS_OF_ROWS:
                alone = gradient(model, n, rank=0, world_size=1)
                np.testing.assert_allclose(found[str(n)], alone, atol=1e-5, rtol=0)
            assert found["noticed"] == 1
