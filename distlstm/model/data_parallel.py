"""Communication between data-parallel workers, through the process group of torch.

Each step has one all-reduce of all gradients together: those of the recurrent layers and of the
embedding rows that the step uses, which are the same rows in all workers.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn


def share_weights(model: nn.Module) -> None:
    """Copy the weights of the first worker's model into this model."""
    for value in model.state_dict().values():
        dist.broadcast(value, 0)


def average(gradients: Sequence[Tensor]) -> None:
    """Average gradients over the workers, in place; all workers have the same shapes."""
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    means = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))


def all_reduce(vector: np.ndarray, *, device: torch.device) -> np.ndarray:
    """The sum of a vector over the workers; `device` is the CPU for gloo, a GPU for nccl."""
    tensor = torch.from_numpy(vector.copy()).to(device)
    dist.all_reduce(tensor)
    return np.asarray(tensor.cpu().numpy())
