"""Tests of distlstm.stages.prediction.prefetch."""

import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import settings as example_settings
from hypothesis import strategies as st

from distlstm.stages.prediction.prefetch import prefetch
from tests.stages.test_interruption import wait_until


@example_settings(max_examples=30)
@given(st.lists(st.none() | st.integers(), max_size=9))
def test_the_items_come_in_their_order_whatever_they_are(items: list[int | None]) -> None:
    assert list(prefetch(iter(items))) == items


def test_a_few_items_are_made_before_they_are_asked_for_and_no_more() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for i in range(100):
            made.append(i)
            yield i

    prefetched = prefetch(items())
    assert next(prefetched) == 0
    wait_until(lambda: len(made) >= 3, 60)
    time.sleep(0.05)
    assert len(made) <= 4
    prefetched.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", [ValueError("of the reader"), KeyboardInterrupt()])
def test_an_error_is_raised_after_the_items_before_it(error: BaseException) -> None:
    def items() -> Iterator[int]:
        yield from (1, 2, 3)
        raise error

    found: list[int] = []
    with pytest.raises(type(error)) as raised:
        found.extend(prefetch(items()))
    assert raised.value is error
    assert found == [1, 2, 3]


@pytest.mark.parametrize("how", ["closed", "forgotten", "failed"])
def test_the_thread_ends_when_the_consumer_stops(how: str) -> None:
    before = set(threading.enumerate())
    started: set[threading.Thread] = set()

    def consume() -> None:
        prefetched = prefetch(iter(range(1_000)))
        assert next(prefetched) == 0
        started.update(set(threading.enumerate()) - before)
        assert started
        if how == "closed":
            prefetched.close()  # type: ignore[attr-defined]
        elif how == "failed":
            raise RuntimeError

    try:
        consume()
    except RuntimeError:
        assert how == "failed"
    wait_until(lambda: not any(thread.is_alive() for thread in started), 60)
