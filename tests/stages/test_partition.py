"""Tests on nodes in network namespaces of their own: a link is cut for a while, and heals."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.networks import Network, can_be_made
from tests.nodes import Cluster
from tests.stages.conftest import NUM_FILES, ROWS_PER_FILE
from tests.stages.test_interruption import epochs_done, wait_until
from tests.stages.test_nodes import EPOCHS, SECONDS, SMALL, check_rows, start, wait

pytestmark = [
    pytest.mark.ray,
    pytest.mark.soak,
    pytest.mark.skipif(not can_be_made(), reason="network namespaces cannot be made here"),
]
SECONDS_APART = 20.0


@dataclass(frozen=True)
class Place:
    """A cluster of a head and two nodes of one CPU, each on a host of its own."""

    network: Network
    cluster: Cluster
    hosts: list[str]
    """The addresses of the nodes."""

    def cut_and_heal(self, address: str) -> None:
        self.network.set_link(address, "down")
        time.sleep(SECONDS_APART)
        self.network.set_link(address, "up")


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with Network() as network:
        head = network.add()
        within = network.within(head)
        with Cluster(host=head, within=within, quick_health_checks=False) as cluster:
            hosts = [network.add(), network.add()]
            for host in hosts:
                cluster.add(1, host=host, within=network.within(host))
            yield Place(network, cluster, hosts)


def test_a_prediction_survives_a_cut_link(
    place: Place, lake: Path, slow_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    arguments = ["batch-predict", lake / "lake", "--model", slow_model, "--output", output]
    process = start(place.cluster, *arguments, "--workers", "2", "--json")
    wait(process, output, 2)
    place.cut_and_heal(place.hosts[0])
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert json.loads(out)["rows_out"] == NUM_FILES * ROWS_PER_FILE
    check_rows(lake, output)


def test_a_training_survives_a_cut_link(place: Place, lake: Path, tmp_path: Path) -> None:
    output = tmp_path / "model"
    arguments = ["train", lake / "train.parquet", "--output", output, *SMALL, *EPOCHS]
    process = start(place.cluster, *arguments, "--workers", "2", "--json")
    wait_until(lambda: epochs_done(output) >= 1 or process.poll() is not None, SECONDS)
    assert process.poll() is None, process.communicate()
    place.cut_and_heal(place.hosts[1])
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 0, err
    assert json.loads(out)["epochs"] == 6
    assert json.loads(out)["metrics"]["accuracy"] > 0.85
