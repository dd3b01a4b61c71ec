"""What models of tokens share: the embedding, recurrent layers, dropout along an axis.

Shape letters: T tokens, B rows, D features, H state of one direction.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from distlstm.model.states import States, take_positions
from distlstm.text.vocabulary import PADDING_ID

Cell = nn.LSTM | nn.GRU | nn.RNN
CELLS: dict[str, type[Cell]] = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}
_CELL_NAMES_IN_FILES = {"forward_cell": "ahead", "backward_cell": "back"}
"""The names of the cells in weight files, since format version 2."""
_EMBEDDING_STD = 0.1


class TokenModel(nn.Module):
    """A model with an embedding of tokens, whose recurrent layers may run in bfloat16."""

    def __init__(self, *, vocab_size: int, embedding_dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, embedding_dim, padding_idx=PADDING_ID)
        nn.init.normal_(self.embedding.weight, std=_EMBEDDING_STD)
        nn.init.zeros_(self.embedding.weight.detach()[PADDING_ID])
        self.recurrent_dtype = torch.float32

    def in_recurrent_dtype(self, device: torch.device) -> torch.autocast:
        """A context in which recurrent layers run in `recurrent_dtype`."""
        enabled = self.recurrent_dtype == torch.bfloat16
        return torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled)

    def applied_weights(self) -> dict[str, Tensor]:
        """Copies (float32, on the CPU) of the weights as the forward pass applies them."""
        return {
            name: value.detach().to("cpu", torch.float32, copy=True)
            for name, value in self.state_dict().items()
        }


class RecurrentLayer(nn.Module):
    """One layer of `nn.LSTM`, `nn.GRU` or `nn.RNN`, in one direction or both.

    Each direction reads the tokens of a row before its padding: the backward direction reads each
    row reversed within its length. So padding costs time but never changes a state, and the fast
    padded kernels can be used (packed sequences take about twice as long on a CPU).
    """

    def __init__(self, cell: str, input_dim: int, hidden_dim: int, *, bidirectional: bool) -> None:
        super().__init__()
        self.forward_cell = CELLS[cell](input_dim, hidden_dim)
        self.backward_cell = CELLS[cell](input_dim, hidden_dim) if bidirectional else None
        self.output_dim = hidden_dim * (2 if bidirectional else 1)
        initialise(self.forward_cell)
        if self.backward_cell is not None:
            initialise(self.backward_cell)
        self.register_state_dict_post_hook(_to_file_names)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(  # type: ignore[no-untyped-call]
            _from_file_names
        )

    @property
    def cells(self) -> list[Cell]:
        """The cell of each direction."""
        backward = self.backward_cell
        return [self.forward_cell] if backward is None else [self.forward_cell, backward]

    def forward(self, inputs_TBD: Tensor, mirror_TB: Tensor) -> States:
        """The states of all directions; `mirror_TB` is `mirror_index` of the batch's lengths."""
        forward_TBH: Tensor = self.forward_cell(inputs_TBD)[0]
        if self.backward_cell is None:
            return States(forward_TBH)
        return States(forward_TBH, self.backward_cell(take_positions(inputs_TBD, mirror_TB))[0])


def _to_file_names(
    module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]
) -> None:
    """Rename the cells in a state dict as in weight files."""
    del module, metadata
    _rename(state, prefix, _CELL_NAMES_IN_FILES)


def _from_file_names(
    module: nn.Module, state: dict[str, Any], prefix: str, *unused: object
) -> None:
    """Rename the cells in a state dict as in the module."""
    del module, unused
    _rename(state, prefix, {in_file: name for name, in_file in _CELL_NAMES_IN_FILES.items()})


def _rename(state: dict[str, Any], prefix: str, names: dict[str, str]) -> None:
    for key in list(state):
        cell, dot, weight = key.removeprefix(prefix).partition(".")
        if key.startswith(prefix) and cell in names:
            state[f"{prefix}{names[cell]}{dot}{weight}"] = state.pop(key)


def initialise(cell: Cell) -> None:
    """Orthogonal recurrent weights, Xavier input weights, and an LSTM forget gate bias of 1.

    The bias keeps early gradients alive over long texts (Jozefowicz et al. 2015).
    """
    weights = {name: value.detach() for name, value in cell.named_parameters()}
    nn.init.xavier_uniform_(weights["weight_ih_l0"])
    num_blocks = len(weights["bias_hh_l0"]) // cell.hidden_size
    for block in weights["weight_hh_l0"].chunk(num_blocks):
        nn.init.orthogonal_(block)
    nn.init.zeros_(weights["bias_hh_l0"])
    nn.init.zeros_(weights["bias_ih_l0"])
    if isinstance(cell, nn.LSTM):  # blocks: input gate, forget gate, candidate, output gate
        nn.init.ones_(weights["bias_ih_l0"].chunk(num_blocks)[1])


class LockedDropout(nn.Module):
    """Dropout along one axis of [T, B, D]: whole features of a row, or whole tokens.

    All tokens of a row lose the same features (Gal and Ghahramani 2016; AWD-LSTM).
    """

    def __init__(self, share: float, *, axis: Literal["feature", "token"]) -> None:
        super().__init__()
        self.share = share
        self.axis = axis

    def forward(self, values_TBD: Tensor) -> Tensor:
        """Drop values in training only, and scale up the others."""
        if not self.training or self.share == 0:
            return values_TBD
        tokens, rows, features = values_TBD.shape
        shape = (1, rows, features) if self.axis == "feature" else (tokens, rows, 1)
        keep = values_TBD.new_empty(shape).bernoulli_(1 - self.share)
        return values_TBD * (keep / (1 - self.share))


def recurrent_dtype(precision: str, device: torch.device) -> torch.dtype:
    """The dtype of the recurrent layers on a device, for a `training.precision` setting.

    "auto" chooses bfloat16 only if the hardware computes in it; otherwise it would be slower.
    """
    if precision == "auto":
        precision = "bf16" if _computes_bf16(device) else "fp32"
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _computes_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # torch has only these private checks; its public API gives instruction set levels.
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
