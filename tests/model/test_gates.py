"""The GRU's gates by hand, and the initial weights. The LSTM's are in `test_classifier.py`."""

import pytest
import torch
from torch import Tensor, nn

from distlstm.model.recurrent import RecurrentLayer
from distlstm.model.states import mirror_index


def gru_by_hand(cell: nn.GRU, inputs_TD: Tensor) -> Tensor:
    """The equations of Cho et al. 2014, in torch's order: reset, update, candidate.

    As in torch, the reset gate acts on U h + b: after the product, its bias included.
    """
    W_r, W_z, W_n = cell.weight_ih_l0.chunk(3)
    U_r, U_z, U_n = cell.weight_hh_l0.chunk(3)
    b_r, b_z, b_n = cell.bias_ih_l0.chunk(3)
    a_r, a_z, a_n = cell.bias_hh_l0.chunk(3)
    h = torch.zeros(cell.hidden_size)
    states = []
    for x in inputs_TD:
        reset = torch.sigmoid(W_r @ x + b_r + U_r @ h + a_r)
        update = torch.sigmoid(W_z @ x + b_z + U_z @ h + a_z)
        candidate = torch.tanh(W_n @ x + b_n + reset * (U_n @ h + a_n))
        h = (1 - update) * candidate + update * h
        states.append(h)
    return torch.stack(states)


def random_biases(layer: RecurrentLayer) -> None:
    """Biases start at 0, where a misplaced one would not be noticed."""
    for name, value in layer.named_parameters():
        if "bias" in name:
            nn.init.normal_(value)


def test_the_gru_is_its_gate_equations_in_both_directions() -> None:
    torch.manual_seed(0)
    layer = RecurrentLayer("gru", 5, 4, bidirectional=True)
    random_biases(layer)
    inputs_TD, length = torch.randn(9, 5), 6
    mirror = mirror_index(torch.tensor([length]), 9)
    states = layer(inputs_TD[:, None], mirror).by_token(mirror)[:length, 0]
    own = inputs_TD[:length]
    torch.testing.assert_close(states[:, :4], gru_by_hand(layer.forward_cell, own))  # type: ignore[arg-type]
    by_hand = gru_by_hand(layer.backward_cell, own.flip(0)).flip(0)  # type: ignore[arg-type]
    torch.testing.assert_close(states[:, 4:], by_hand)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_every_recurrent_block_of_either_direction_starts_orthogonal(cell: str) -> None:
    layer = RecurrentLayer(cell, 5, 6, bidirectional=True)
    for direction in (layer.forward_cell, layer.backward_cell):
        assert direction is not None
        for block in direction.weight_hh_l0.split(6):
            torch.testing.assert_close(block @ block.T, torch.eye(6), atol=1e-5, rtol=0)


@pytest.mark.parametrize("cell", ["gru", "rnn"])
def test_only_the_lstm_has_a_bias_that_is_not_zero_at_the_start(cell: str) -> None:
    layer = RecurrentLayer(cell, 5, 6, bidirectional=True)
    biases = [value for name, value in layer.named_parameters() if "bias" in name]
    assert len(biases) == 4
    assert not any(bias.any() for bias in biases)


def test_both_forget_gates_start_open_and_no_other_gate_does() -> None:
    layer = RecurrentLayer("lstm", 5, 6, bidirectional=True)
    for direction in (layer.forward_cell, layer.backward_cell):
        assert direction is not None
        bias = direction.bias_ih_l0 + direction.bias_hh_l0
        assert [block.tolist() for block in bias.chunk(4)] == [[0.0] * 6, [1.0] * 6] + [
            [0.0] * 6
        ] * 2


def test_an_open_forget_gate_keeps_the_cell_and_a_shut_one_empties_it() -> None:
    """What the gate's place among torch's blocks is for: 100 steps of noise change nothing."""
    torch.manual_seed(0)
    cell = nn.LSTM(3, 2, batch_first=True)
    cell_state, noise = torch.tensor([[[0.7, -0.4]]]), torch.randn(1, 100, 3)
    start = (torch.zeros(1, 1, 2), cell_state)
    with torch.no_grad():
        for weight in cell.parameters():
            weight.zero_()
        input_gate, forget_gate, _, _ = cell.bias_ih_l0.chunk(4)
        input_gate.fill_(-50)
        forget_gate.fill_(50)
        _, (_, kept) = cell(noise, start)
        forget_gate.fill_(-50)
        _, (_, emptied) = cell(noise, start)
    torch.testing.assert_close(kept, cell_state)
    torch.testing.assert_close(emptied, torch.zeros_like(cell_state))
