"""Tests of what stands beside the package: the cluster file, the job, the experiments."""

import warnings
from pathlib import Path

import pytest
import yaml

from distlstm.config import load_config
from jobs.run import commands

ROOT = Path(__file__).parent.parent


def test_rays_own_validator_accepts_the_cluster_file() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from ray.autoscaler._private.util import prepare_config, validate_config

        validate_config(prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text())))


def test_every_node_starts_with_token_authentication() -> None:
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    for commands_ in (cluster["head_start_ray_commands"], cluster["worker_start_ray_commands"]):
        starts = [command for command in commands_ if "ray start" in command]
        assert starts
        assert all(command.startswith("RAY_AUTH_MODE=token ") for command in starts)
    job = yaml.safe_load((ROOT / "jobs/kuberay/rayjob.yaml").read_text())
    assert job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    assert (ROOT / job["spec"]["entrypoint"].split()[1]).exists()


@pytest.mark.parametrize("path", sorted((ROOT / "jobs/experiments").glob("*.toml")))
def test_every_experiment_is_a_valid_config(path: Path) -> None:
    assert load_config(path) != load_config(None)


def test_the_job_runs_the_commands_in_order_and_only_those_it_has_data_for() -> None:
    steps = commands(train="a", test=None, unlabelled="b", output=Path("/shared/x"), workers=3)
    assert [step[0] for step in steps] == ["tune", "train", "batch-predict"]
    assert steps[1][-4:] == ["--config", "/shared/x/study/best.toml", "--workers", "3"]
