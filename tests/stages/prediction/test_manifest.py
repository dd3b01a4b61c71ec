"""Tests of distlstm.stages.manifest."""

import json
from collections import Counter
from pathlib import Path

import pytest

from distlstm.data.units import UNIT
from distlstm.errors import UserError
from distlstm.stages.prediction.manifest import (
    Run,
    drift_of,
    read_manifest,
    recorded_limit,
    totals_of,
    write_manifest,
)
from distlstm.stages.prediction.parts import Part, Parts, Sums
from distlstm.stages.run.files import MANIFEST_FILE
from distlstm.storage import LocalStorage
from tests.stages.small_model import SETTINGS

FACTS = {
    "corpus": {
        "label_counts": {"sport": 30, "money": 10},
        "unknown_share": 0.01,
        "truncated_share": 0.0,
    },
    "validation_score_histogram": [0] * 18 + [10, 30],
}


def part(name: str, num_rows: int, without: dict[str, int]) -> Part:
    return Part(
        name=name,
        input=f"/in/{name}",
        unit={},
        settings={},
        rows_in=num_rows,
        rows_out=num_rows,
        rows_without_prediction=without,
    )


def some_parts() -> Parts:
    parts = Parts()
    parts.add(part("b.parquet", 3, {"null": 1, "empty": 2}), Sums(num_truncated=2))
    sums = Sums(
        label_counts=Counter({"sport": 3, "money": 1}),
        num_tokens=10,
        num_unknown=2,
        score_histogram=[0] * 19 + [4],
    )
    parts.add(part("a.parquet", 5, {"null": 1}), sums)
    return parts


PARTS = some_parts()


def test_parts_are_added_up() -> None:
    totals = totals_of(PARTS)
    assert (totals.rows_in, totals.rows_out, totals.num_tokens) == (8, 8, 10)
    assert totals.rows_without_prediction == {"null": 2, "empty": 2}
    assert totals.label_counts == {"sport": 3, "money": 1}
    assert totals.score_histogram[-1] == sum(totals.score_histogram) == 4
    assert (totals.unknown_share, totals.truncated_share) == (0.2, 0.25)


def test_no_parts_are_nothing() -> None:
    assert totals_of(Parts()).rows_out == 0
    assert drift_of(totals_of(Parts()), FACTS) is None


def test_parts_together_have_the_sums_of_all() -> None:
    together = Parts.together(PARTS, Parts(), some_parts())
    assert together.sums.label_counts == {"sport": 6, "money": 2}
    assert together.sums.score_histogram[-1] == 8
    assert (together.sums.num_tokens, together.sums.num_truncated) == (20, 4)
    assert PARTS.sums.num_tokens == 10
    assert together.names == {"a.parquet", "b.parquet"}


def test_a_label_that_is_no_longer_predicted_is_drift() -> None:
    parts = Parts()
    sums = Sums(label_counts=Counter(sport=4), score_histogram=[0] * 18 + [1, 3])
    parts.add(part("a.parquet", 4, {}), sums)
    drift = drift_of(totals_of(parts), FACTS)
    assert drift is not None
    assert drift.labels_moved == pytest.approx(0.25)  # of 30 to 10, the 10 are missing
    assert drift.scores_moved == 0


def test_drift_is_the_share_of_rows_that_would_have_to_move() -> None:
    drift = drift_of(totals_of(PARTS), FACTS)
    assert drift is not None
    assert drift.labels_moved == 0  # 3 to 1, as 30 to 10
    assert drift.scores_moved == pytest.approx(0.25)  # all in the last bin, not three quarters
    assert (drift.unknown_share, drift.unknown_share_in_training) == (0.2, 0.01)
    assert "20.0% of the tokens unknown (1.0%)" in str(drift)
    assert drift_of(totals_of(PARTS), {"corpus": {}}) is None


def test_a_manifest_is_read_back_a_line_for_each_part(tmp_path: Path) -> None:
    run = Run(inputs=("/in",), parts_written=2, errors=('a "quoted" <error>',))
    write_manifest(
        LocalStorage(tmp_path), SETTINGS, PARTS, run, UNIT, drift_of(totals_of(PARTS), FACTS)
    )
    manifest = read_manifest(LocalStorage(tmp_path))
    assert manifest["run"]["errors"] == ['a "quoted" <error>']
    assert [row["name"] for row in manifest["parts"]] == ["a.parquet", "b.parquet"]
    assert manifest["drift"]["scores_moved"] == pytest.approx(0.25)
    assert recorded_limit(LocalStorage(tmp_path)) == UNIT
    lines = (tmp_path / MANIFEST_FILE).read_text().splitlines()
    assert json.loads(lines[-4].rstrip(","))["name"] == "a.parquet"
    write_manifest(LocalStorage(tmp_path), SETTINGS, Parts(), run, UNIT)
    assert read_manifest(LocalStorage(tmp_path))["parts"] == []


@pytest.mark.parametrize("content", [None, "", "[]", "{}", "{", "\xff"])
def test_a_missing_or_damaged_manifest_is_a_user_error(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / MANIFEST_FILE).write_bytes(content.encode("latin-1"))
    with pytest.raises(UserError, match=MANIFEST_FILE):
        read_manifest(LocalStorage(tmp_path))
    assert recorded_limit(LocalStorage(tmp_path)) is None
