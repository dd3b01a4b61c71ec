"""What workers on the same steps tell one another; how they do it is the process group's.

A step ends in one exchange, of all gradients in one piece: those of the recurrent layers and of the
rows of the embedding that the step uses, which are the same ones for all workers.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn


def share_weights(model: nn.Module) -> None:
    """Give a model the weights that the first worker's has."""
    for value in model.state_dict().values():
        dist.broadcast(value, 0)


def average(gradients: Sequence[Tensor]) -> None:
    """Average gradients over the workers, in place; each worker has as many, of the same shapes."""
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    means = torch.split(flat, [gradient.numel() for gradient in gradients])
    for gradient, mean in zip(gradients, means, strict=True):
        gradient.copy_(mean.view_as(gradient))


def all_reduce(vector: np.ndarray, *, device: torch.device) -> np.ndarray:
    """A vector's sum over the workers (gloo takes what is on the CPU, nccl what is on a GPU)."""
    tensor = torch.from_numpy(vector.copy()).to(device)
    dist.all_reduce(tensor)
    return np.asarray(tensor.cpu().numpy())
