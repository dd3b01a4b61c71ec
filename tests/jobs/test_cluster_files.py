"""Tests of the files for Ray's cluster launcher: on AWS, and on machines of one's own."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
AWS = ROOT / "cluster.yaml"
LOCAL = ROOT / "jobs/local-cluster.yaml"
FILES = pytest.mark.parametrize("path", [AWS, LOCAL], ids=["aws", "local"])


def read(path: Path) -> dict[str, Any]:
    return dict(yaml.safe_load(path.read_text(encoding="utf-8")))


@FILES
@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")
def test_rays_own_validator_accepts_the_file(path: Path) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(read(path)))


@FILES
def test_no_node_starts_without_the_token(path: Path) -> None:
    cluster = read(path)
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for node in ("head", "worker"):
        starts = [c for c in cluster[f"{node}_start_ray_commands"] if "ray start" in c]
        assert len(starts) == 1
        assert len(re.findall(r"RAY_AUTH_MODE=token ray start", starts[0])) == 1
        assert "--disable-usage-stats" in starts[0]


@FILES
def test_the_dashboard_stays_on_the_heads_loopback(path: Path) -> None:
    (start,) = (c for c in read(path)["head_start_ray_commands"] if "ray start" in c)
    assert "--dashboard-host=127.0.0.1" in start


@FILES
def test_what_is_copied_to_the_nodes_is_there_and_enough_to_install(path: Path) -> None:
    copied = {path for path in read(path)["file_mounts"].values() if not path.startswith("~")}
    assert all((ROOT / path).exists() for path in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert copied >= {"distlstm", "pyproject.toml", project["readme"], *project["license-files"]}


@FILES
def test_no_node_needs_a_shared_disk(path: Path) -> None:
    cluster = read(path)
    commands = [*cluster["setup_commands"], *cluster.get("head_setup_commands", [])]
    assert not [command for command in commands if "nfs" in command or "mount" in command]


def test_every_node_on_aws_gets_its_credentials_from_an_instance_profile() -> None:
    for node_type in read(AWS)["available_node_types"].values():
        assert node_type["node_config"]["IamInstanceProfile"]["Name"]


def test_the_cluster_has_a_worker_from_the_start_and_gpus_only_when_asked() -> None:
    types = read(AWS)["available_node_types"]
    assert types["cpu_worker"]["min_workers"] >= 1  # distlstm refuses to plan with no CPU
    assert types["gpu_worker"]["min_workers"] == 0
    assert types["head"]["resources"] == {"CPU": 0}


def test_a_local_cluster_uses_every_machine_that_it_names() -> None:
    cluster = read(LOCAL)
    machines = len(cluster["provider"]["worker_ips"])
    assert (cluster["min_workers"], cluster["max_workers"]) == (machines, machines)
