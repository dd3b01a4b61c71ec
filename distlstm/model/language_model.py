"""A language model in both directions, over the embedding and recurrent layers of a classifier.

Each direction is a stack of its own, which reads a text in its order and predicts the next token
there; so no direction sees what it is to predict. A prediction is a vector. Its products with the
rows of the embedding are the logits (tied weights, Press and Wolf 2017), to which the log of a
prior is added: Zipf's law, as token ids are ranks by frequency.

In training, the softmax is over the right token and a sample of the others (Jean et al. 2015, On
Using Very Large Target Vocabulary for Neural Machine Translation).

Shape letters: T tokens, B rows, D embedding, H hidden state of one direction, N predictions,
U embedding rows that are used, S sampled tokens, V vocabulary.
"""

import math
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import BackwardCFunction, FunctionCtx

from distlstm.config import ModelConfig
from distlstm.model.recurrent import CELLS, LockedDropout, TokenModel, initialise
from distlstm.model.states import mirror_index

_LOGITS_AT_ONCE = 2**25


class Predictions(NamedTuple):
    """The predictions of one direction for a batch."""

    vectors_ND: Tensor
    token_ids_N: Tensor
    """The right tokens."""
    row_ids_N: Tensor
    """The rows of the batch."""


class LanguageModel(TokenModel):
    """Token ids to predictions of each direction's next tokens."""

    def __init__(self, config: ModelConfig, *, vocab_size: int, dropout: float = 0.0) -> None:
        super().__init__(vocab_size=vocab_size, embedding_dim=config.embedding_dim)
        self.stacks = nn.ModuleList(
            DirectionStack(config, dropout) for _ in range(2 if config.bidirectional else 1)
        )

    def forward(self, token_ids_BT: Tensor, lengths_B: Tensor) -> list[Predictions]:
        """The predictions of each direction; a row of one token has none."""
        token_ids_TB = token_ids_BT.t().contiguous()
        mirrored_TB = token_ids_TB.gather(0, mirror_index(lengths_B, len(token_ids_TB)))
        positions_T1 = torch.arange(1, len(token_ids_TB), device=lengths_B.device)[:, None]
        predicted_N = (positions_T1 < lengths_B).flatten().nonzero().squeeze(1)
        predictions = []
        for stack, read_TB in zip(self.stacks, (token_ids_TB, mirrored_TB), strict=False):
            inputs_TBD = self.embedding(read_TB)
            with self.in_recurrent_dtype(read_TB.device):
                vectors_ND = stack(inputs_TBD, predicted_N)
            following_N = read_TB[1:].flatten().index_select(0, predicted_N)
            predictions.append(
                Predictions(vectors_ND.float(), following_N, predicted_N % len(lengths_B))
            )
        return predictions


class DirectionStack(nn.Module):
    """The recurrent layers of one direction, and a linear layer from states to predictions."""

    def __init__(self, config: ModelConfig, dropout: float) -> None:
        super().__init__()
        dims = [config.embedding_dim, *[config.hidden_dim] * config.num_layers]
        cell = CELLS[config.cell]
        self.cells = nn.ModuleList(cell(*pair) for pair in pairwise(dims))
        for each in self.cells:
            initialise(each)  # type: ignore[arg-type]  # a ModuleList has no element type
        self.dropout = LockedDropout(dropout, axis="feature")
        self.output = nn.Linear(config.hidden_dim, config.embedding_dim)
        nn.init.orthogonal_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, values_TBD: Tensor, predicted_N: Tensor) -> Tensor:
        """The predictions [N, D] at these positions, numbered over [T, B]."""
        for cell in self.cells:
            values_TBD = cell(self.dropout(values_TBD))[0]
        states_NH = self.dropout(values_TBD).flatten(0, 1).index_select(0, predicted_N)
        predictions: Tensor = self.output(states_NH)
        return predictions


def sample_tokens(vocab_size: int, num_draws: int, rng: np.random.Generator) -> np.ndarray:
    """The distinct tokens of so many draws from the prior, sorted (int32 [S])."""
    # The inverse of the distribution function log(id + 1) / log(V).
    draws = np.exp(rng.random(num_draws) * math.log(vocab_size)).astype(np.int32)
    return np.unique(draws.clip(1, vocab_size - 1))


def log_prior(token_ids: Tensor, vocab_size: int) -> Tensor:
    """The log of a token's prior (float32): as in Zipf's law, log(1 + 1 / id) / log(V)."""
    ranks = token_ids.clamp(min=1).float()
    return ((1 / ranks).log1p() / math.log(vocab_size)).log()


def sampled_losses(
    predictions: Predictions,
    rows_UD: Tensor,
    *,
    right_N: Tensor,
    sampled_S: Tensor,
    sampled_ids_S: Tensor,
    num_draws: int,
    vocab_size: int,
) -> Tensor:
    """The loss of each prediction (float32 [N]), among the sampled tokens.

    Args:
        predictions: of one direction.
        rows_UD: the used rows of the embedding.
        right_N: indices of the right tokens among them.
        sampled_S: indices of the sampled tokens among them.
        sampled_ids_S: ids of the sampled tokens.
        num_draws: the number of draws that gave the sample.
        vocab_size: of the model.
    """
    found_N = torch.searchsorted(sampled_ids_S, predictions.token_ids_N).clamp(
        max=len(sampled_ids_S) - 1
    )
    hit_N = torch.where(sampled_ids_S[found_N] == predictions.token_ids_N, found_N, -1)
    losses: Tensor = _SampledSoftmax.apply(  # type: ignore[no-untyped-call]
        predictions.vectors_ND,
        rows_UD.index_select(0, right_N),
        rows_UD.index_select(0, sampled_S),
        _offset(predictions.token_ids_N, num_draws, vocab_size),
        _offset(sampled_ids_S, num_draws, vocab_size),
        hit_N,
    )
    return losses


def _offset(token_ids: Tensor, num_draws: int, vocab_size: int) -> Tensor:
    """What is added to a sampled logit: its log prior, less the log of its share of samples."""
    prior = log_prior(token_ids, vocab_size)
    share = -torch.expm1(num_draws * torch.log1p(-prior.exp()))
    return prior - share.log()


class _SampledSoftmax(torch.autograd.Function):
    """The cross-entropy of one right logit and S others, in one pass over the [N, S] logits."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        vectors_ND: Tensor,
        right_ND: Tensor,
        sampled_SD: Tensor,
        right_offset_N: Tensor,
        sampled_offset_S: Tensor,
        hit_N: Tensor,
    ) -> Tensor:
        others_NS = torch.addmm(sampled_offset_S, vectors_ND, sampled_SD.t())
        rows_N = (hit_N >= 0).nonzero().squeeze(1)
        others_NS[rows_N, hit_N[rows_N]] = -torch.inf  # the right token counts once
        logits_N = (vectors_ND * right_ND).sum(1).add_(right_offset_N)
        highest_N = torch.maximum(others_NS.amax(1), logits_N)
        others_NS.sub_(highest_N[:, None]).exp_()
        logits_N -= highest_N
        right_N = logits_N.exp()
        sums_N = others_NS.sum(1).add_(right_N)
        ctx.save_for_backward(vectors_ND, right_ND, sampled_SD, others_NS, right_N, sums_N)
        return sums_N.log() - logits_N

    @staticmethod
    def backward(ctx: BackwardCFunction, gradient_N: Tensor) -> tuple[Tensor | None, ...]:
        vectors_ND, right_ND, sampled_SD, others_NS, right_N, sums_N = ctx.saved_tensors  # type: ignore[misc]
        scale_N = gradient_N / sums_N
        others_NS = others_NS.mul_(scale_N[:, None])
        of_right_N1 = (right_N * scale_N - gradient_N)[:, None]
        of_vectors = torch.addmm(of_right_N1 * right_ND, others_NS, sampled_SD)
        return of_vectors, of_right_N1 * vectors_ND, others_NS.t() @ vectors_ND, None, None, None


def exact_losses(predictions: Predictions, embedding_VD: Tensor) -> Tensor:
    """The loss of each prediction (float32 [N]), among all tokens but padding."""
    vocab_size = len(embedding_VD)
    prior_V = log_prior(torch.arange(vocab_size, device=embedding_VD.device), vocab_size)
    prior_V[0] = -torch.inf
    losses = [torch.zeros(0, device=embedding_VD.device)]
    at_once = max(1, _LOGITS_AT_ONCE // vocab_size)
    parts = (torch.split(each, at_once) for each in predictions[:2])
    for vectors_ND, token_ids_N in zip(*parts, strict=True):
        logits_NV = torch.addmm(prior_V, vectors_ND, embedding_VD.t())
        losses.append(nn.functional.cross_entropy(logits_NV, token_ids_N, reduction="none"))
    return torch.cat(losses)
