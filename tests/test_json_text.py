"""JSON that any program reads, and old files that have numbers JSON does not have."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distlstm.console import results
from distlstm.json_text import read_json, to_json, write_json

NAN, INFINITY = float("nan"), float("inf")


def strictly(text: str) -> Any:
    """Parse as a program does that is not Python."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize("value", [NAN, INFINITY, -INFINITY, np.float64("nan")])
def test_a_figure_without_a_value_is_null(value: float) -> None:
    nested = {"loss": value, "rows": [(1, value)], "label": "NaN", "ok": 0.1}
    expected = {"loss": None, "rows": [[1, None]], "label": "NaN", "ok": 0.1}
    assert strictly(to_json(nested)) == expected
    assert strictly(to_json(nested, indent=1)) == expected


def test_a_trial_that_diverged_is_printed_as_json(capfd: pytest.CaptureFixture[str]) -> None:
    results.print_json({"trials": [{"metrics": {"loss": NAN}, "parameters": {"clip": INFINITY}}]})
    assert strictly(capfd.readouterr().out) == {
        "trials": [{"metrics": {"loss": None}, "parameters": {"clip": None}}]
    }


def test_a_file_is_read_as_it_was_written_but_for_what_json_lacks(tmp_path: Path) -> None:
    write_json(tmp_path / "f.json", {"天气": [1, 0.1, None, "ü", NAN]})
    assert strictly((tmp_path / "f.json").read_text("utf-8")) == {"天气": [1, 0.1, None, "ü", None]}
    (tmp_path / "f.json").write_text('{"loss": NaN, "most": [Infinity, -Infinity]}')
    assert read_json(tmp_path / "f.json") == {"loss": None, "most": [None, None]}


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"a": \x01}', "\udcff"])
def test_what_is_no_json_is_a_value_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.json").write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(ValueError, match=r"Expecting|nested|control|decode"):
        read_json(tmp_path / "f.json")
