"""Tests of the choice among trials, and of which checkpoints may go."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distlstm.config import SearchConfig
from distlstm.stages.run.events import TrialRow
from distlstm.stages.tuning.table import choose, worth_keeping, write_trials


def row(
    trial: int, quality: float | None, speed: float | None = None, *, running: bool = False
) -> TrialRow:
    metrics = {} if quality is None else {"macro_f1": quality, "accuracy": quality, "loss": 0.1}
    return TrialRow(
        trial=str(trial),
        parameters={"model.hidden_dim": 8 * trial, "model.pooling": ["max"]},
        state="failed" if quality is None else "running" if running else "done",
        metrics=metrics,
        rows_per_second=speed,
    )


def best_first(rows: list[TrialRow]) -> list[TrialRow]:
    return sorted(rows, key=lambda r: (not r.metrics, -r.metrics.get("macro_f1", 0.0)))


def chosen(rows: list[TrialRow], **search: object) -> str | None:
    found = choose(best_first(rows), SearchConfig(**search))  # type: ignore[arg-type]
    return None if found is None else found.trial


def test_the_best_or_the_fastest_within_the_tolerance() -> None:
    rows = [row(1, 0.900, 10.0), row(2, 0.897, 50.0), row(3, 0.880, 90.0), row(4, None)]
    assert chosen(rows) == "1"
    assert chosen(rows, prefer="fast", tolerance=0.5) == "2"
    assert chosen(rows, prefer="fast", tolerance=2.5) == "3"
    assert chosen(rows, prefer="fast", tolerance=0.0) == "1"
    assert chosen([row(4, None)], prefer="fast") is None
    assert chosen([]) is None


trials = st.lists(
    st.tuples(st.integers(0, 40), st.integers(1, 20)), min_size=1, max_size=12, unique=True
)


@given(trials, trials, st.data(), st.sampled_from(["best", "fast"]))
def test_whatever_comes_later_the_chosen_trial_was_kept(
    earlier: list[tuple[int, int]], later: list[tuple[int, int]], data: st.DataObject, prefer: str
) -> None:
    running = data.draw(st.sets(st.sampled_from(range(len(earlier)))))
    rows = [row(i, q / 1000, s, running=i in running) for i, (q, s) in enumerate(earlier)]
    search = SearchConfig(prefer=prefer, tolerance=1.0)  # type: ignore[arg-type]
    kept = worth_keeping(best_first(rows), search)
    ended = [
        data.draw(st.integers(0, 40)) / 1000 if i in running else None for i in range(len(rows))
    ]
    rows = [
        r if quality is None else row(i, quality, r.rows_per_second)
        for i, (r, quality) in enumerate(zip(rows, ended, strict=True))
    ]
    new = [row(100 + i, q / 1000, float(s)) for i, (q, s) in enumerate(later)]
    final = choose(best_first(rows + new), search)
    assert final is not None
    assert final.trial in kept | {r.trial for r in new}


def test_what_an_interrupted_study_will_go_on_with_is_kept() -> None:
    rows = [row(1, 0.9, 2.0), replace(row(2, 0.5, 1.0), state="unfinished"), row(3, 0.4, 1.0)]
    assert worth_keeping(rows, SearchConfig()) == {"1", "2"}


def test_little_is_kept() -> None:
    rows = best_first([row(i, 0.9 - i / 1000, float(i % 3)) for i in range(30)])
    assert worth_keeping(rows, SearchConfig()) == {"0"}
    assert len(worth_keeping(rows, SearchConfig(prefer="fast", tolerance=5))) <= 3


@pytest.mark.parametrize("rows", [[row(1, 0.5, 2.0), row(2, None)], [row(2, None)]])
def test_a_table_has_its_columns_whatever_the_trials_gave(
    rows: list[TrialRow], tmp_path: Path
) -> None:
    write_trials(tmp_path / "trials.parquet", rows)
    schema = pq.read_schema(tmp_path / "trials.parquet")
    for name in ("accuracy", "macro_f1", "loss", "rows_per_second"):
        assert schema.field(name).type == pa.float64()
    assert schema.field("error").type == pa.string()
    assert schema.field("model.hidden_dim").type == pa.int64()
    assert schema.field("model.pooling").type == pa.list_(pa.string())
