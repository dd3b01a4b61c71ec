"""Measures a function in several data-parallel workers, one process and thread each, with gloo."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

from distlstm.model.data_parallel import all_reduce, average, share_weights
from distlstm.model.loop import Worker

Measure = Callable[[Worker, int, int], float]
"""Tokens per second of all workers with whom a worker exchanges gradients. It gets the worker, its
rank, and the number of workers with whom it shares the rows."""


def _run_rank(rank: int, world_size: int, exchange: bool, measure: Measure, directory: str) -> None:
    """Measure in this process; rank 0 writes the result to a file."""
    torch.set_num_threads(1)
    meeting = f"file://{directory}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
    together = Worker(
        rank=rank,
        world_size=world_size,
        share_weights=share_weights,
        average=average,
        all_reduce=partial(all_reduce, device=torch.device("cpu")),
    )
    figure = measure(together if exchange else Worker(), rank, world_size)
    if rank == 0:
        Path(directory, "figure").write_text(str(figure if exchange else world_size * figure))
    dist.destroy_process_group()


def of_workers(world_size: int, measure: Measure, *, exchange: bool) -> float:
    """Tokens per second of `world_size` workers, which exchange gradients or not."""
    with tempfile.TemporaryDirectory() as directory:
        arguments = (world_size, exchange, measure, directory)
        spawn(_run_rank, args=arguments, nprocs=world_size)  # type: ignore[no-untyped-call]
        return float(Path(directory, "figure").read_text())
