"""Tests of the classifier: its gates, its pooling, and that padding never matters."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from distlstm.config import ModelConfig
from distlstm.model.batch import Batch
from distlstm.model.classifier import Classifier
from distlstm.model.pooling import MaskedPooling
from distlstm.model.recurrent import LockedDropout, RecurrentLayer
from distlstm.model.states import States, mirror_index

LENGTHS = [7, 1, 4, 12, 2]


def batch_of(rows: list[list[int]]) -> Batch:
    flat = np.array([token for row in rows for token in row], np.int32)
    return Batch.of_rows(flat, np.array([len(row) for row in rows]))


def ragged_rows() -> list[list[int]]:
    rng = np.random.default_rng(0)
    return [rng.integers(2, 40, length).tolist() for length in LENGTHS]


def classifier(**config: object) -> Classifier:
    torch.manual_seed(0)
    sizes = {"embedding_dim": 8, "hidden_dim": 6}
    model = Classifier(ModelConfig(**{**sizes, **config}), vocab_size=40, num_labels=3)  # type: ignore[arg-type]
    return model.eval()


def lstm_by_hand(cell: torch.nn.LSTM, inputs_TD: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The equations of Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000.

    Returns all hidden states [T, H], the last h and the last c.
    """
    W_i, W_f, W_g, W_o = cell.weight_ih_l0.chunk(4)
    U_i, U_f, U_g, U_o = cell.weight_hh_l0.chunk(4)
    b_i, b_f, b_g, b_o = (cell.bias_ih_l0 + cell.bias_hh_l0).chunk(4)
    h = c = torch.zeros(cell.hidden_size)
    states = []
    for x in inputs_TD:
        input_gate = torch.sigmoid(W_i @ x + U_i @ h + b_i)
        forget_gate = torch.sigmoid(W_f @ x + U_f @ h + b_f)
        output_gate = torch.sigmoid(W_o @ x + U_o @ h + b_o)
        candidate = torch.tanh(W_g @ x + U_g @ h + b_g)
        c = forget_gate * c + input_gate * candidate
        h = output_gate * torch.tanh(c)
        states.append(h)
    return torch.stack(states), h, c


def test_the_lstm_is_its_gate_equations() -> None:
    layer = RecurrentLayer("lstm", 5, 4, bidirectional=False)
    inputs_TD = torch.randn(9, 5)
    states, (h, c) = layer.forward_cell(inputs_TD[:, None])
    by_hand, last_h, last_c = lstm_by_hand(layer.forward_cell, inputs_TD)  # type: ignore[arg-type]
    torch.testing.assert_close(states[:, 0], by_hand)
    torch.testing.assert_close(h[0, 0], last_h)
    torch.testing.assert_close(c[0, 0], last_c)


def test_the_backward_direction_is_the_equations_on_the_reversed_text() -> None:
    layer = RecurrentLayer("lstm", 5, 4, bidirectional=True)
    inputs_TD = torch.randn(9, 5)
    lengths = torch.tensor([6])
    mirror = mirror_index(lengths, 9)
    states = layer(inputs_TD[:, None], mirror).by_token(mirror)[:, 0]
    by_hand, _, _ = lstm_by_hand(layer.backward_cell, inputs_TD[:6].flip(0))  # type: ignore[arg-type]
    torch.testing.assert_close(states[:6, 4:], by_hand.flip(0))


def test_the_plain_rnn_is_its_equation() -> None:
    layer = RecurrentLayer("rnn", 5, 4, bidirectional=False)
    cell, h = layer.forward_cell, torch.zeros(4)
    inputs_TD = torch.randn(9, 5)
    bias = cell.bias_ih_l0 + cell.bias_hh_l0
    for x in inputs_TD:
        h = torch.tanh(cell.weight_ih_l0 @ x + cell.weight_hh_l0 @ h + bias)
    torch.testing.assert_close(layer.forward_cell(inputs_TD[:, None])[0][-1, 0], h)


def test_an_lstm_starts_by_remembering() -> None:
    cell = RecurrentLayer("lstm", 5, 4, bidirectional=False).forward_cell
    assert cell.bias_ih_l0.tolist() == [0.0] * 4 + [1.0] * 4 + [0.0] * 8
    for block in cell.weight_hh_l0.chunk(4):
        torch.testing.assert_close(block @ block.T, torch.eye(4), atol=1e-5, rtol=0)


@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(
    "pooling",
    [("last",), ("max",), ("mean",), ("attention",), ("last", "max", "mean", "attention")],
)
def test_padding_never_changes_a_logit(
    cell: str, num_layers: int, bidirectional: bool, pooling: tuple[str, ...]
) -> None:
    model = classifier(
        cell=cell, num_layers=num_layers, bidirectional=bidirectional, pooling=pooling
    )
    rows = ragged_rows()
    with torch.inference_mode():
        together = batch_of(rows)
        logits = model(together.token_ids, together.lengths)
        for row, expected in zip(rows, logits, strict=True):
            alone = batch_of([row])
            torch.testing.assert_close(
                model(alone.token_ids, alone.lengths)[0], expected, atol=1e-5, rtol=0
            )


def pool_by_hand(pooling: MaskedPooling, own_TS: Tensor) -> Tensor:
    """One kind of pooling, of the states of a row's own tokens (3 features a direction)."""
    match pooling.kinds:
        case ("last",):
            return torch.cat([own_TS[-1, :3], own_TS[0, 3:]])
        case ("max",):
            return own_TS.amax(0)
        case ("mean",):
            return own_TS.mean(0)
    return (own_TS * pooling.score(torch.tanh(pooling.key(own_TS))).softmax(0)).sum(0)


@pytest.mark.parametrize("kind", ["last", "max", "mean", "attention"])
@pytest.mark.parametrize("with_equals", [False, True], ids=["ragged", "with equal values"])
def test_pooling_and_its_gradient_are_what_it_is_called_row_by_row(
    kind: str, with_equals: bool
) -> None:
    torch.manual_seed(0)
    pooling = MaskedPooling((kind,), 6)  # type: ignore[arg-type]
    states = States(torch.randn(12, 5, 3), torch.randn(12, 5, 3))
    if with_equals:
        states = States(*(state.round() for state in states.directions))
    lengths = torch.tensor([12] * 5 if with_equals else LENGTHS)
    mirror = mirror_index(lengths, 12)
    for state in states.directions:
        state.requires_grad_()
    pooled = pooling(states, lengths, mirror)
    rows = zip(states.by_token(mirror).unbind(1), lengths.tolist(), strict=True)
    by_hand = torch.stack([pool_by_hand(pooling, row[:length]) for row, length in rows])
    torch.testing.assert_close(pooled, by_hand)
    direction = torch.randn_like(pooled)
    found, expected = (
        torch.autograd.grad((each * direction).sum(), states.directions)
        for each in (pooled, by_hand)
    )
    torch.testing.assert_close(found, expected)


def test_locked_dropout_drops_whole_features_or_whole_tokens() -> None:
    values = torch.ones(4, 10, 8)
    features = LockedDropout(0.5, axis="feature").train()(values)
    assert (features == features[:1]).all()
    by_token = LockedDropout(0.5, axis="token").train()(values)
    assert (by_token == by_token[..., :1]).all()
    assert set(by_token.unique().tolist()) == {0.0, 2.0}
    assert (LockedDropout(0.5, axis="token").eval()(values) == values).all()


def test_bf16_gives_nearly_the_same_probabilities() -> None:
    model, rows = classifier(), batch_of(ragged_rows())
    with torch.inference_mode():
        full = model(rows.token_ids, rows.lengths).softmax(1)
        model.recurrent_dtype = torch.bfloat16
        half = model(rows.token_ids, rows.lengths).softmax(1)
    assert half.dtype == torch.float32
    assert (full - half).abs().max() < 0.01


def test_a_batch_is_padded_on_the_right_and_weighs_each_row_the_same() -> None:
    batch = batch_of([[5, 6, 7], [8]])
    assert batch.token_ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert batch.num_tokens == 4
    assert math.isclose(float(batch.weights.sum()), 1.0)


def test_applied_weights_are_those_of_the_arithmetic_that_applies_them() -> None:
    model = Classifier(ModelConfig(), vocab_size=20, num_labels=3)
    exact = model.applied_weights()
    assert all(torch.equal(exact[name], value) for name, value in model.state_dict().items())
    model.recurrent_dtype = torch.bfloat16
    rounded = model.applied_weights()
    for name, value in model.state_dict().items():
        kept = value if name.startswith("output.") else value.bfloat16().float()
        assert torch.equal(rounded[name], kept), name
    rounded["output.bias"].fill_(7)
    assert not torch.equal(rounded["output.bias"], model.output.bias)


def test_a_model_for_inference_agrees_with_the_one_it_was_made_of() -> None:
    model = Classifier(ModelConfig(num_layers=2), vocab_size=20, num_labels=3).eval()
    token_ids, lengths = torch.randint(2, 20, (5, 9)), torch.tensor([9, 1, 4, 7, 2])
    with torch.inference_mode():
        before = model(token_ids, lengths)
        assert torch.equal(model.for_inference(torch.float32)(token_ids, lengths), before)
        half = model.for_inference(torch.bfloat16)(token_ids, lengths)
    assert half.dtype == torch.float32
    assert torch.allclose(half, before, atol=0.03)
