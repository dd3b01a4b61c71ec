"""Tests of distlstm.stages.prediction.progress."""

import pytest

from distlstm.data.files import SourceFile
from distlstm.data.units import Unit
from distlstm.stages.prediction.parts import Part, Parts, Sums
from distlstm.stages.prediction.progress import Meter, Progress


def unit(size: int) -> Unit:
    return Unit(
        file=SourceFile(
            path="/a", relative="a", size=size, modified=0, format="csv", compression=None
        )
    )


def meter() -> Meter:
    return Meter(num_bytes=1_000, parts_total=10, parts_reused=3)


def test_nothing_is_known_before_the_first_unit_is_read() -> None:
    state = meter().look([Progress()], now=0.0)
    assert (state.rows, state.rows_per_second, state.share, state.seconds_left) == (
        0,
        0,
        None,
        None,
    )
    assert (state.parts, state.parts_reused, state.parts_total) == (0, 3, 10)


def test_share_and_time_left_follow_from_the_bytes_of_the_rows_read() -> None:
    subject = meter()
    subject.look([Progress()], now=0.0)
    subject.look([Progress(rows_done=10, complete_rows=50, complete_bytes=100)], now=1.0)
    state = subject.look([Progress(rows_done=50, complete_rows=50, complete_bytes=100)], now=3.0)
    assert state.share == pytest.approx(0.1)  # 50 rows of 1,000 / 100 * 50
    assert state.rows_per_second == pytest.approx(50 / 3)
    assert state.seconds_left == pytest.approx(450 / (50 / 3))


def parts(*rows: int) -> Parts:
    """Parts with so many rows of three tokens, of which one is empty and two are of the linear
    model."""
    found = Parts()
    for number, count in enumerate(rows):
        part = Part(
            name=f"{number}",
            input="/a",
            unit={},
            settings={},
            rows_in=count,
            rows_out=count,
            rows_without_prediction={"empty": 1},
        )
        found.add(part, Sums(num_tokens=3 * count, num_by_partner=2))
    return found


def test_finished_bundles_count_whole() -> None:
    subject = meter()
    subject.finished([unit(250), unit(250)], parts(20, 40))
    state = subject.look([], now=1.0)
    assert (state.rows, state.share, state.parts) == (60, 0.5, 2)
    assert (state.tokens, state.rows_by_linear_model) == (180, 4)
    assert state.rows_without_prediction == {"empty": 2}


def test_the_rows_never_go_back_when_a_worker_begins_anew() -> None:
    subject = meter()
    assert subject.look([Progress(rows_done=80)], now=1.0).rows == 80
    assert subject.look([Progress(rows_done=5)], now=2.0).rows == 80
    assert subject.look([Progress(rows_done=95)], now=3.0).rows == 95


def test_the_share_stays_known_while_a_worker_begins_anew() -> None:
    subject = meter()
    first = subject.look([Progress(60, complete_rows=100, complete_bytes=500)], now=1.0)
    assert first.share == pytest.approx(0.3)
    for now, under_way in ((2.0, []), (3.0, [Progress()]), (4.0, [Progress(rows_done=9)])):
        again = subject.look(under_way, now=now)
        assert (again.rows, again.share, again.rows_per_second) == (60, first.share, 0.0)


def test_speed_is_that_of_the_last_half_minute() -> None:
    subject = meter()
    for second in range(100):
        rows = min(second, 50) * 10 + max(0, second - 50)
        state = subject.look([Progress(rows_done=rows)], now=float(second))
    assert state.rows_per_second == pytest.approx(1, abs=0.1)


def test_the_share_is_never_more_than_all() -> None:
    subject = meter()
    subject.finished([unit(1_000)], parts(60))
    state = subject.look([Progress(rows_done=30)], now=1.0)
    assert (state.share, state.seconds_left) == (1.0, 0.0 if state.rows_per_second else None)
