"""Metrics of commands on a real cluster, as Prometheus would scrape them from its node."""

import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from distlstm.model.directory import save_model
from tests.ports import free_port
from tests.stages.small_model import model
from tests.stages.test_interruption import wait_until
from tests.stages.test_tokens import Nodes, environment, running

pytestmark = pytest.mark.ray

_LINE = re.compile(r"ray_distlstm_(\w+)\{(.*)\} (\S+)$")
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_OF_RAY = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId", "JobId"}
_TRAINING = """
import sys, ray
from distlstm.model.metrics import Metrics as Figures
from distlstm.model.pretraining import LanguageEpoch
from distlstm.model.training import EpochResult
from distlstm.stages.run.events import CheckpointSaved, EpochDone, LanguageEpochDone
from distlstm.stages.run.events import TrialRow, TrialsChanged
from distlstm.stages.run.metrics import measured

seen = []
tell, tell_other = (measured(seen.append, output=output) for output in ("model", "lm"))
tell(CheckpointSaved(5))  # before Ray is connected: seen, and not measured
ray.init(address=sys.argv[1], log_to_driver=False, logging_level="CRITICAL")
steps = dict(steps=9, is_best=True, padding_share=0.1, highest_rate=0.1, learning_rate=0.1)
epoch = dict(epoch=2, training_loss=0.5, seconds=2.0, num_tokens=3000, **steps)
figures = dict.fromkeys(Figures.__dataclass_fields__, 0.25) | {"accuracy": 0.75, "num_rows": 8}
tell(EpochDone(EpochResult(**epoch, validation=Figures(**figures)), 5))
tell(CheckpointSaved(0.5))
tell(CheckpointSaved(20))
trials = [TrialRow(trial=str(i), parameters={}, state=state)
          for i, state in enumerate(["running", "done", "done"])]
tell(TrialsChanged(tuple(trials[:1]), 3, "accuracy"))
tell(TrialsChanged(tuple(trials[1:]), 3, "accuracy"))
tell_other(LanguageEpochDone(LanguageEpoch(**epoch, validation_loss=0.0), 5))
assert len(seen) == 7
ray.shutdown()
"""


@dataclass(frozen=True)
class Cluster:
    """A cluster of one node, and where it exports metrics."""

    nodes: Nodes
    port: int

    def scrape(self, output: str) -> dict[tuple[str, ...], float]:
        """The values of an output's metrics, by name and further labels."""
        address = f"http://127.0.0.1:{self.port}/metrics"
        with urllib.request.urlopen(address, timeout=20) as answer:
            lines = answer.read().decode().splitlines()
        found = {}
        for line in lines:
            if match := _LINE.match(line):
                labels = dict(_LABEL.findall(match[2]))
                if labels.pop("output") == output:
                    own = [v for k, v in labels.items() if k not in _OF_RAY and k[:5] != "otel_"]
                    found[match[1], *own] = float(match[3])
        return found


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    port = free_port()
    logs = tmp_path_factory.mktemp("logs")
    with running(logs, f"--metrics-export-port={port}", num_nodes=1) as nodes:
        yield Cluster(nodes, port)


def test_a_prediction_counts_its_rows_tokens_and_parts(cluster: Cluster, tmp_path: Path) -> None:
    save_model(model(), tmp_path / "model")
    (tmp_path / "in").mkdir()
    for name in ("a", "b"):
        table = pa.table({"text": ["goal rain", "bank", None, ""]})
        pq.write_table(table, tmp_path / f"in/{name}.parquet")
    output = str(tmp_path / "out")
    command = ["batch-predict", tmp_path / "in", "--model", tmp_path / "model", "--output", output]
    subprocess.run(
        [sys.executable, "-m", "distlstm", *command, "--address", cluster.nodes.address, "--quiet"],
        env=environment(cluster.nodes.token),
        check=True,
    )
    wait_until(lambda: ("rows_predicted_total",) in cluster.scrape(output), 60)
    found = cluster.scrape(output)
    assert found["rows_predicted_total",] == 8
    assert found["parts_written_total",] == found["parts",] == 2
    assert found["tokens_predicted_total",] == 6
    reasons = {key[1]: n for key, n in found.items() if key[0] == "rows_without_prediction_total"}
    assert sum(reasons.values()) == 4
    assert len(reasons) == 2
    assert found["bundles_waiting",] == 0
    assert {("workers", "working"), ("workers", "wanted")} <= found.keys()


def test_a_training_a_study_and_a_language_model_report_how_far_they_are(cluster: Cluster) -> None:
    driver = cluster.nodes.client(cluster.nodes.token, _TRAINING)
    _, errors = driver.communicate(timeout=120)
    assert driver.returncode == 0, errors
    wait_until(lambda: ("epoch",) in cluster.scrape("lm"), 60)
    found = cluster.scrape("model")
    assert found["epoch",] == 2
    assert found["training_loss",] == 0.5
    assert found["training_tokens_per_second",] == 1500
    assert found["validation", "accuracy"] == 0.75
    assert found["validation", "macro_f1"] == 0.25
    assert found["checkpoint_seconds_count",] == 2
    assert found["checkpoint_seconds_sum",] == pytest.approx(20.5, abs=5)  # Ray keeps buckets only
    assert found["trials", "done"] == 2
    assert found["trials", "running"] == 0
    assert cluster.scrape("lm")["validation", "perplexity"] == 1
