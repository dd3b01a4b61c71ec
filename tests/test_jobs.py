"""Tests of what stands beside the package: the cluster file, the job, the experiments."""

import ast
import re
import shlex
import signal
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from distlstm.cli import cli
from distlstm.config import load_config
from jobs import run
from jobs.run import Job, commands, lacking

ROOT = Path(__file__).parent.parent
EXPERIMENTS = sorted((ROOT / "jobs/experiments").glob("*.toml"))
FULL = Job(
    train=("s3://lake/a", "s3://lake/b"),
    output=Path("/shared/x"),
    validation=("s3://lake/c",),
    test=("s3://lake/d",),
    inputs=("s3://lake/e/*.parquet",),
    config=Path("jobs/experiments/small.toml"),
    text_column="body",
    label_column="topic",
    workers=3,
    gpu=False,
)


@pytest.fixture(scope="module")
def cluster() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def rayjob() -> dict[str, Any]:
    text = (ROOT / "jobs/kuberay/rayjob.yaml").read_text(encoding="utf-8")
    jobs = [part for part in yaml.safe_load_all(text) if part["kind"] == "RayJob"]
    return dict(jobs[0]["spec"])


@pytest.mark.filterwarnings("ignore::DeprecationWarning:ray.*")
def test_rays_own_validator_accepts_the_cluster_file(cluster: dict[str, Any]) -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    validate_config(prepare_config(cluster))


def test_no_node_of_the_cluster_starts_without_the_token(cluster: dict[str, Any]) -> None:
    assert cluster["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for node in ("head", "worker"):
        starts = [c for c in cluster[f"{node}_start_ray_commands"] if "ray start" in c]
        assert len(starts) == 1
        assert len(re.findall(r"RAY_AUTH_MODE=token ray start", starts[0])) == 1
        assert "--disable-usage-stats" in starts[0]


def test_the_dashboard_stays_on_the_heads_loopback(cluster: dict[str, Any]) -> None:
    (start,) = (c for c in cluster["head_start_ray_commands"] if "ray start" in c)
    assert "--dashboard-host=127.0.0.1" in start


def test_what_the_cluster_copies_is_there_and_enough_to_install(cluster: dict[str, Any]) -> None:
    copied = {path for path in cluster["file_mounts"].values() if not path.startswith("~")}
    assert all((ROOT / path).exists() for path in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert copied >= {"distlstm", "pyproject.toml", project["readme"], *project["license-files"]}


def test_the_cluster_has_a_worker_from_the_start_and_gpus_only_when_asked(
    cluster: dict[str, Any],
) -> None:
    types = cluster["available_node_types"]
    assert types["cpu_worker"]["min_workers"] >= 1  # distlstm refuses to plan with no CPU
    assert types["gpu_worker"]["min_workers"] == 0
    assert types["head"]["resources"] == {"CPU": 0}


def test_the_kubernetes_job_authenticates_and_runs_what_is_in_the_repository(
    rayjob: dict[str, Any],
) -> None:
    assert rayjob["rayClusterSpec"]["authOptions"] == {"mode": "token"}
    python, script, *arguments = shlex.split(rayjob["entrypoint"])
    assert python == "python"
    assert (ROOT / Path(script).relative_to("/opt/distlstm")).exists()
    context = run.main.make_context("run.py", arguments)
    mounts = {
        mount["mountPath"]
        for group in _groups(rayjob)
        for mount in group["template"]["spec"]["containers"][0]["volumeMounts"]
    }
    assert mounts == {f"/{context.params['output'].parts[1]}"}


def test_the_kubernetes_job_pins_the_ray_that_is_installed(rayjob: dict[str, Any]) -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    version = rayjob["rayClusterSpec"]["rayVersion"]
    assert f"ray=={version}" in pins
    assert f"rayproject/ray:{version}-" in (ROOT / "jobs/README.md").read_text(encoding="utf-8")


def test_every_pod_of_the_kubernetes_job_runs_the_same_image(rayjob: dict[str, Any]) -> None:
    containers = [group["template"]["spec"]["containers"][0] for group in _groups(rayjob)]
    assert len({container["image"] for container in containers}) == 1
    assert all(c["resources"]["limits"] == c["resources"]["requests"] for c in containers)


def _groups(rayjob: dict[str, Any]) -> list[dict[str, Any]]:
    spec = rayjob["rayClusterSpec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_is_a_valid_config_of_its_own(path: Path) -> None:
    assert load_config(path) != load_config(None)
    assert path.name in (ROOT / "jobs/README.md").read_text(encoding="utf-8")


def test_the_job_runs_the_commands_in_order_and_only_those_it_has_data_for() -> None:
    steps = commands(Job(train=("a",), output=Path("/shared/x"), inputs=("b",), workers=3))
    assert [shlex.join(step) for step in steps] == [
        "tune a --output /shared/x/study --workers 3",
        "train a --output /shared/x/model --config /shared/x/study/best.toml --workers 3",
        "batch-predict b --model /shared/x/model --output /shared/x/predictions --workers 3",
    ]


def test_every_command_of_the_job_is_one_that_distlstm_understands() -> None:
    steps = commands(FULL)
    assert [name for name, *_ in steps] == ["tune", "train", "evaluate", "batch-predict"]
    for name, *arguments in steps:
        params = cli.commands[name].make_context(name, list(arguments)).params
        assert (str(params["workers"]), params["gpu"]) == ("3", False)
        if name in ("tune", "train"):
            assert (params["text_column"], params["label_column"]) == ("body", "topic")
            assert params["validation"] == ("s3://lake/c",)
            assert params["data"] == ("s3://lake/a", "s3://lake/b")


def test_the_model_is_trained_by_the_config_that_the_search_found_best() -> None:
    tune, train, *applied = commands(FULL)
    assert tune[tune.index("--config") + 1] == "jobs/experiments/small.toml"
    assert train[train.index("--config") + 1] == "/shared/x/study/best.toml"
    for step in applied:
        assert step[step.index("--model") + 1] == train[train.index("--output") + 1]


def test_the_job_stops_at_the_first_command_that_fails_with_its_exit_code(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run.run([["--version"], ["no-such-command"], ["--version"]]) == 2
    assert capfd.readouterr().out.count("version") == 1


def test_a_command_that_a_signal_ends_has_the_exit_code_that_a_shell_gives_it() -> None:
    kill = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    assert run._execute([sys.executable, "-c", kill]) == 128 + signal.SIGKILL


def test_a_command_may_finish_what_it_does_after_ctrl_c(capfd: pytest.CaptureFixture[str]) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # it may be ignored in the background
    slow_to_end = """
import os, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
time.sleep(0.3)
os.kill(os.getppid(), signal.SIGINT)
time.sleep(0.5)
print("kept")
raise SystemExit(130)
"""
    assert run._execute([sys.executable, "-c", slow_to_end]) == 130
    assert capfd.readouterr().out == "kept\n"


@pytest.mark.parametrize("output", ["s3://lake/out", "gs://lake/out", "out", "./out"])
def test_an_output_that_the_nodes_do_not_share_is_refused(output: str) -> None:
    result = CliRunner().invoke(run.main, ["--train", "a", "--output", output])
    assert result.exit_code == 2
    assert "all nodes share" in result.output


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_scaling_up_needs_a_number_of_workers_and_a_cluster(
    workers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    wanted = ["--train", "a", "--output", "/x", "--scale-up-within", "5m"]
    result = CliRunner().invoke(run.main, [*wanted, *workers])
    assert result.exit_code == 2
    assert "--scale-up-within needs --workers" in result.output


@pytest.mark.parametrize(
    ("count", "present", "missing"),
    [
        (4, {"CPU": 4.0, "GPU": 4.0}, ""),
        (4, {"CPU": 9.0, "GPU": 1.0}, "3 GPU"),
        (2, {}, "2 CPU, 2 GPU"),
    ],
)
def test_what_the_cluster_still_lacks_is_said(
    count: int, present: dict[str, float], missing: str
) -> None:
    assert lacking({"CPU": 1.0, "GPU": 1.0}, count, present) == missing


def test_nothing_in_the_package_imports_jobs() -> None:
    for module in (ROOT / "distlstm").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "jobs" for name in names), module
