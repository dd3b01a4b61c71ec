"""Padded batches of token ids. Shape letters: B rows, T tokens."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from distlstm.text.vocabulary import PADDING_ID


@dataclass(frozen=True)
class Batch:
    """Rows that go through the model together.

    `token_ids` is int64 [B, T], padded on the right; `lengths`, `label_ids` are int64 [B];
    `weights` (float32 [B]) is what each row's loss counts: with equal weights 1/B, their mean.
    `targets` (float32 [B, C]) are the labels' probabilities that the loss is taken against, if not
    simply the label ids. Every length is at least 1.
    """

    token_ids: torch.Tensor
    lengths: torch.Tensor
    label_ids: torch.Tensor
    weights: torch.Tensor
    targets: torch.Tensor | None = None

    @classmethod
    def of_rows(
        cls,
        token_ids: np.ndarray,
        lengths: np.ndarray,
        *,
        label_ids: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        targets: np.ndarray | None = None,
    ) -> "Batch":
        """Pad rows that stand one after the other in `token_ids` (int32, [sum of lengths])."""
        count, longest = len(lengths), int(lengths.max())
        padded = np.full((count, longest), PADDING_ID, np.int64)
        padded[np.arange(longest) < lengths[:, None]] = token_ids
        labels = np.zeros(count, np.int64) if label_ids is None else label_ids
        shares = np.full(count, 1 / count, np.float32) if weights is None else weights
        return cls(
            torch.from_numpy(padded),
            torch.from_numpy(lengths.astype(np.int64)),
            torch.from_numpy(labels.astype(np.int64)),
            torch.from_numpy(shares.astype(np.float32)),
            None if targets is None else torch.from_numpy(targets),
        )

    @property
    def num_tokens(self) -> int:
        """Tokens, padding left out."""
        return int(self.lengths.sum())

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if value is not None
        }
        return replace(self, **moved)
