"""Adding up and averaging over workers: gradients by DDP, all but the embedding's.

A step uses some thousand rows of the embedding, and DDP would send all of them. On a CPU, whose
workers share their cores with the sending, only the rows that any worker used are sent.
"""

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from distlstm.model.classifier import Classifier


def data_parallel(model: Classifier) -> nn.Module:
    """The module to call in place of the model, whose gradients are averaged over the workers.

    On a CPU without that of the embedding, which is left to `average_used_rows`.
    """
    device = next(model.parameters()).device
    if device.type == "cuda":
        return DistributedDataParallel(model, device_ids=[device])
    ignore = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
    ignore(model, ["embedding.weight"])  # type: ignore[no-untyped-call]
    return DistributedDataParallel(model)


def add_up(vector: np.ndarray, *, device: torch.device) -> np.ndarray:
    """A vector's sum over the workers (gloo takes what is on the CPU, nccl what is on a GPU)."""
    tensor = torch.from_numpy(vector.copy()).to(device)
    dist.all_reduce(tensor)
    return np.asarray(tensor.cpu().numpy())


def average_used_rows(gradient: Tensor, token_ids_BT: Tensor) -> None:
    """Average the embedding's gradient [V, D] over the workers, in place, where DDP has not.

    Args:
        gradient: of this worker's rows.
        token_ids_BT: of this worker's rows; no others have a gradient.
    """
    if gradient.device.type == "cuda":
        return
    used = torch.zeros(len(gradient), dtype=torch.uint8)
    used[token_ids_BT.flatten()] = 1
    dist.all_reduce(used, dist.ReduceOp.MAX)
    rows = used.nonzero().squeeze(1)
    values = gradient.index_select(0, rows)
    dist.all_reduce(values)
    gradient.index_copy_(0, rows, values / dist.get_world_size())
