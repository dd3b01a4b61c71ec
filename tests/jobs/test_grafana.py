"""The Grafana dashboard shows the metrics that the commands have, and no others."""

import json
import re
from pathlib import Path
from typing import Any

from distlstm.stages.run.metrics import CHECKPOINT_SECONDS, COUNTERS, GAUGES

_DASHBOARD = Path(__file__).parents[2] / "jobs/grafana.json"
_NAME = re.compile(r"ray_distlstm_(\w+)\{")


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(_DASHBOARD.read_text())["panels"]
    return found


def test_every_metric_is_shown_under_the_name_that_ray_gives_it() -> None:
    queries = [target["expr"] for panel in panels() for target in panel["targets"]]
    shown = {name for query in queries for name in _NAME.findall(query)}
    expected = {f"{name}_total" for name in COUNTERS} | set(GAUGES)
    assert shown == expected | {f"{CHECKPOINT_SECONDS}_bucket"}


def test_panels_do_not_overlap_and_have_a_description() -> None:
    cells = [
        (x, y)
        for panel in panels()
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in panels()}) == len(panels())
    assert all(panel["title"] and panel["description"] for panel in panels())
