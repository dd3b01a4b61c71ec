"""Padded batches of token ids. Shape letters: B rows, T tokens."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from distlstm.text.vocabulary import PADDING_ID


@dataclass(frozen=True)
class Batch:
    """Rows that go through the model together.

    `token_ids` is int64 [B, T], padded on the right; `lengths` and `label_ids` are int64 [B]; every
    length is at least 1. `weights` (float32 [B]) multiply the loss of each row: equal weights of
    1/B give the mean. `targets` (float32 [B, C]), if given, are the label probabilities or label
    sets that the loss uses in place of the label ids.

    `step_ids` (int64 [U], sorted, distinct) are the token ids of the whole step and padding, if
    other workers have other rows of the step.

    `sampled_ids` (int64 [S], sorted, distinct) are the tokens with which a language model compares
    the right ones in this step. Its weights multiply the losses of all predictions of a row.
    """

    token_ids: torch.Tensor
    lengths: torch.Tensor
    label_ids: torch.Tensor
    weights: torch.Tensor
    targets: torch.Tensor | None = None
    step_ids: torch.Tensor | None = None
    sampled_ids: torch.Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    @classmethod
    def of_rows(
        cls,
        token_ids: np.ndarray,
        lengths: np.ndarray,
        *,
        label_ids: np.ndarray | None = None,
        weights: np.ndarray | None = None,
        targets: np.ndarray | None = None,
        step_tokens: np.ndarray | None = None,
    ) -> "Batch":
        """Pad rows that are concatenated in `token_ids` (int32, [sum of lengths]).

        `step_tokens` (int32, [tokens]) are all tokens of the step, if it has more rows than these.
        """
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
            None if step_tokens is None else used_ids(torch.from_numpy(step_tokens)),
        )

    @property
    def num_tokens(self) -> int:
        """Number of tokens without padding."""
        return int(self.lengths.sum())

    @property
    def used_ids(self) -> torch.Tensor:
        """The token ids of the step, with padding first (int64 [U], sorted, distinct)."""
        return used_ids(self.token_ids) if self.step_ids is None else self.step_ids

    def to(self, device: torch.device) -> "Batch":
        """The same batch on another device."""
        moved = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if value is not None
        }
        return replace(self, **moved)


def used_ids(token_ids: torch.Tensor) -> torch.Tensor:
    """The distinct ids of padding and of these tokens, sorted; int64 [U]."""
    padding = token_ids.new_tensor([PADDING_ID])
    used: torch.Tensor = torch.unique(torch.cat([padding, token_ids.flatten()]))
    return used.long()
