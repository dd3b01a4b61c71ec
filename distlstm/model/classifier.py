"""The classifier: embedding, recurrent layers, pooling, linear layer. The loss applies softmax.

Shape letters: T tokens, B rows, D embedding, H hidden state of one direction, C labels.
"""

from typing import Self

import torch
from torch import Tensor, nn

from distlstm.config import ModelConfig
from distlstm.model.pooling import MaskedPooling
from distlstm.model.recurrent import LockedDropout, RecurrentLayer, TokenModel
from distlstm.model.states import mirror_index

_IN_RECURRENT_DTYPE = ("embedding", "layers", "pooling")


class Classifier(TokenModel):
    """Token ids to logits.

    The recurrent layers and the pooling may run in bfloat16 (`recurrent_dtype`); the final linear
    layer stays in float32.
    """

    def __init__(self, config: ModelConfig, *, vocab_size: int, num_labels: int) -> None:
        super().__init__(vocab_size=vocab_size, embedding_dim=config.embedding_dim)
        self.token_dropout = LockedDropout(config.token_dropout, axis="token")
        self.state_dropout = LockedDropout(config.state_dropout, axis="feature")
        self.layers = nn.ModuleList()
        dim = config.embedding_dim
        for _ in range(config.num_layers):
            layer = RecurrentLayer(
                config.cell, dim, config.hidden_dim, bidirectional=config.bidirectional
            )
            self.layers.append(layer)
            dim = layer.output_dim
        self.pooling = MaskedPooling(config.pooling, dim)
        self.dropout = nn.Dropout(config.dropout)
        self.output = nn.Linear(self.pooling.output_dim, num_labels)

    def forward(self, token_ids_BT: Tensor, lengths_B: Tensor) -> Tensor:
        """Logits [B, C] of rows whose lengths are all at least 1."""
        inputs = self.token_dropout(self.embedding(token_ids_BT.t().contiguous()))
        mirror_TB = mirror_index(lengths_B, token_ids_BT.shape[1])
        with self.in_recurrent_dtype(token_ids_BT.device):
            for layer in self.layers:
                states = layer(self.state_dropout(inputs), mirror_TB)
                inputs = states.by_token(mirror_TB) if layer is not self.layers[-1] else inputs
            pooled = self.pooling(states, lengths_B, mirror_TB)
        logits: Tensor = self.output(self.dropout(pooled.float()))
        return logits

    def for_inference(self, dtype: torch.dtype) -> Self:
        """Cast embedding, recurrent layers and pooling to the dtype in which they run.

        The weights are then cast once and not in every call; the model can no longer be trained.
        """
        for name in _IN_RECURRENT_DTYPE:
            self.get_submodule(name).to(dtype)
        return self.eval()

    def applied_weights(self) -> dict[str, Tensor]:
        """Copies (float32, on the CPU) of the weights as the forward pass applies them.

        Weights of layers that run in bfloat16 are rounded to it, so that a machine without
        bfloat16 applies the same weights as the one that validated them.
        """
        return {
            name: value.detach().to("cpu", self._applied_dtype(name)).to(torch.float32, copy=True)
            for name, value in self.state_dict().items()
        }

    def _applied_dtype(self, name: str) -> torch.dtype:
        in_recurrent_dtype = name.partition(".")[0] in _IN_RECURRENT_DTYPE
        return self.recurrent_dtype if in_recurrent_dtype else torch.float32
