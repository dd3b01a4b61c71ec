"""Tests of scales and their ticks."""

import pytest

from distlstm.report.axes import Categories, number_text, numbers

EXTREMES = [
    [0.0],
    [-3.0],
    [5.0, 5.0],
    [0.1, 0.1000001],
    [1e-12, 3e-12],
    [-1e9, 1e9],
    [1e-6, 1e6],
    [0.74312, 0.74318],
    [1e300, 2e300],
]


@pytest.mark.parametrize("values", EXTREMES)
def test_a_scale_holds_its_values_and_has_a_few_ticks(values: list[float]) -> None:
    axis = numbers(values, title="")
    assert all(0 <= axis.place(value) <= 1 for value in values)
    assert 2 <= len(axis.ticks) <= 13
    assert all(-1e-6 <= place <= 1 + 1e-6 for place, _ in axis.ticks)
    assert [place for place, _ in axis.ticks] == sorted(place for place, _ in axis.ticks)


def test_ticks_are_at_round_numbers() -> None:
    assert [text for _, text in numbers([0.61, 0.79], title="").ticks] == [
        "0.65", "0.7", "0.75",
    ]  # fmt: skip
    epochs = numbers([1, 4], title="", is_log=False, is_whole=True)
    assert [text for _, text in epochs.ticks] == ["1", "2", "3", "4"]


def test_a_wide_spread_is_logarithmic_and_a_narrow_or_signed_one_is_not() -> None:
    wide = numbers([1e-4, 1e-2], title="")
    assert wide.place(1e-3) == pytest.approx(0.5)
    assert [text for _, text in wide.ticks][:2] == ["0.0001", "0.0002"]
    assert not numbers([1, 20], title="").is_log
    assert not numbers([0, 1000], title="", is_log=True).is_log


def test_categories_are_spread_evenly_and_one_alone_is_in_the_middle() -> None:
    assert Categories(title="", names=("a",)).place("a") == 0.5
    assert Categories(title="", names=("a", "b")).ticks == ((0.25, "a"), (0.75, "b"))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.25, "0.25"), (64.0, "64"), (12_345.6, "12,346"), (2.5e6, "2.5M"),
     (1e-5, "1e-5"), (-1.5e10, "-1.5e10")],
)  # fmt: skip
def test_a_number_is_as_short_as_a_tick_needs_it(value: float, text: str) -> None:
    assert number_text(value) == text
