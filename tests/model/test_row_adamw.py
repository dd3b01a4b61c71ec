"""Tests of distlstm.model.row_adamw: against AdamW over all rows."""

import pytest
import torch
from torch import Tensor

from distlstm.model.row_adamw import RowAdamW

VOCAB_SIZE, DIM, STEPS = 120, 4, 200
BETAS, DECAY = (0.9, 0.99), 0.5


def first_weights() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(VOCAB_SIZE, DIM) * 0.1


def used_ids() -> list[Tensor]:
    """Of every step: a few, some in all of them and some in one or none, by Zipf's law."""
    torch.manual_seed(1)
    draws = [(VOCAB_SIZE ** torch.rand(9)).long() for _ in range(STEPS)]
    return [torch.unique(draw) for draw in draws]


def rate(step: int) -> float:
    return 0.01 * (1 - step / STEPS)


def train(rows: RowAdamW, steps: range, *, catch_up: tuple[int, ...] = ()) -> None:
    """Steps with gradients that depend on the weights, as real ones do."""
    every = used_ids()
    for step in steps:
        used = rows.take(every[step])
        used.weights.requires_grad_()
        torch.autograd.backward((used.weights - 0.3).square().sum())
        rows.step(used, rate=rate(step))
        if step in catch_up:
            rows.catch_up()
    rows.catch_up()


def by_rows(catch_up: tuple[int, ...] = ()) -> Tensor:
    rows = RowAdamW(first_weights(), betas=BETAS, weight_decay=DECAY)
    train(rows, range(STEPS), catch_up=catch_up)
    return rows.weights


def dense() -> Tensor:
    weights = torch.nn.Parameter(first_weights())
    optimizer = torch.optim.AdamW([weights], betas=BETAS, weight_decay=DECAY)
    for step, ids in enumerate(used_ids()):
        optimizer.param_groups[0]["lr"] = rate(step)
        optimizer.zero_grad()
        torch.autograd.backward((weights[ids] - 0.3).square().sum())
        optimizer.step()
    return weights.detach()


def test_the_weights_are_those_of_adamw_over_all_rows() -> None:
    found, expected = by_rows(), dense()
    moved = (expected - first_weights()).abs().max()
    assert moved > 0.1
    torch.testing.assert_close(found, expected, atol=2e-5 * float(moved), rtol=0)


def test_catching_up_on_the_way_changes_nothing() -> None:
    torch.testing.assert_close(by_rows(catch_up=(0, 3, 4, 150)), by_rows(), atol=1e-6, rtol=0)


def test_a_row_that_is_never_used_decays_and_does_nothing_else() -> None:
    never = torch.ones(VOCAB_SIZE, dtype=torch.bool)
    never[torch.cat(used_ids())] = False
    assert never.any()
    share = torch.prod(torch.tensor([1 - rate(step) * DECAY for step in range(STEPS)]))
    torch.testing.assert_close(by_rows()[never], first_weights()[never] * share)


def test_a_state_that_is_taken_over_goes_on_as_if_unbroken() -> None:
    first = RowAdamW(first_weights(), betas=BETAS, weight_decay=DECAY)
    train(first, range(50))
    second = RowAdamW(first.weights.clone(), betas=BETAS, weight_decay=DECAY)
    second.load_state_dict(first.state_dict())
    train(second, range(50, STEPS))
    assert torch.equal(second.weights, by_rows(catch_up=(49,)))


def test_without_a_gradient_no_row_changes_nor_misses_a_step() -> None:
    rows = RowAdamW(first_weights(), betas=BETAS, weight_decay=DECAY)
    rows.step(rows.take(torch.tensor([0, 5])), rate=0.01)
    rows.catch_up()
    assert torch.equal(rows.weights, first_weights())
    assert rows.steps == 0


@pytest.mark.parametrize("missed", [1, 20, 900, 3_000])
def test_numbers_stay_finite_and_fast_however_long_a_row_is_missing(missed: int) -> None:
    weights = torch.full((3, 2), 0.1)
    rows = RowAdamW(weights, betas=BETAS, weight_decay=0.01)
    for step in range(missed + 1):
        used = rows.take(torch.tensor([0, 2] if step == 0 else [0]))
        used.weights.requires_grad_()
        torch.autograd.backward(used.weights.square().sum())
        rows.step(used, rate=1e-3)
    assert float(rows._powers.min()) > 1e-38
    rows.catch_up()
    assert torch.isfinite(rows.weights).all()
    assert 0 < float(rows.weights[2, 0]) < float(rows.weights[1, 0])
