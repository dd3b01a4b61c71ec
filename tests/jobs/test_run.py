"""Tests of the job, and of the experiments that it can be given."""

import ast
import shlex
import signal
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from distlstm.cli import cli
from distlstm.config import load_config
from jobs import run
from jobs.run import Job, commands, waiting_for

ROOT = Path(__file__).parents[2]
EXPERIMENTS = sorted((ROOT / "jobs/experiments").glob("*.toml"))
FULL = Job(
    train=("s3://lake/a", "s3://lake/b"),
    output="s3://lake/x",
    validation=("s3://lake/c",),
    test=("s3://lake/d",),
    inputs=("s3://lake/e/*.parquet",),
    config="jobs/experiments/small.toml",
    text_column="body",
    label_column="topic",
    workers="3",
    gpu=False,
)


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_is_a_valid_config_of_its_own(path: Path) -> None:
    assert load_config(path) != load_config(None)
    assert path.name in (ROOT / "jobs/README.md").read_text(encoding="utf-8")


def test_the_job_runs_the_commands_in_order_and_only_those_it_has_data_for() -> None:
    steps = commands(Job(train=("a",), output="s3://lake/x/", inputs=("b",), workers="2:8"))
    assert [shlex.join(step) for step in steps] == [
        "tune a --output s3://lake/x/study --workers 2:8",
        "train a --output s3://lake/x/model --config s3://lake/x/study/best.toml --workers 2:8",
        "batch-predict b --model s3://lake/x/model --output s3://lake/x/predictions --workers 2:8",
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
    assert train[train.index("--config") + 1] == "s3://lake/x/study/best.toml"
    for step in applied:
        assert step[step.index("--model") + 1] == train[train.index("--output") + 1]


def test_the_job_stops_at_the_first_command_that_fails_with_its_exit_code(
    capfd: pytest.CaptureFixture[str],
) -> None:
    assert run.run([["--version"], ["no-such-command"], ["--version"]]) == 2
    assert capfd.readouterr().out.count("version") == 1


def test_the_nodes_are_asked_for_before_each_command() -> None:
    asked: list[str] = []
    steps = [["--version"], ["no-such-command"], ["--version"]]
    assert run.run(steps, before=lambda: asked.append("nodes")) == 2
    assert asked == ["nodes", "nodes"]


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


@pytest.mark.parametrize("output", ["out", "./out", "ftp://lake/out", "http://lake/out", "://out"])
def test_an_output_that_the_nodes_do_not_share_is_refused(output: str) -> None:
    result = CliRunner().invoke(run.main, ["--train", "a", "--output", output])
    assert result.exit_code == 2
    assert "neither a URI in an object store" in result.output


@pytest.mark.parametrize(
    "output", ["s3://lake/out", "gs://lake/out", "az://lake/out", "/nfs", "file:///nfs"]
)
def test_an_output_may_be_in_an_object_store_or_on_a_shared_disk(output: str) -> None:
    context = run.main.make_context("run.py", ["--train", "a", "--output", output])
    assert context.params["output"] == output


@pytest.mark.parametrize("workers", ["0", "0:4", "4:2", "2:", "many", "-1"])
def test_workers_that_are_no_number_and_no_range_are_refused(workers: str) -> None:
    wanted = ["--train", "a", "--output", "/x", "--workers", workers]
    result = CliRunner().invoke(run.main, wanted)
    assert result.exit_code == 2
    assert "is not a number, such as 4, or a range, such as 2:8" in result.output


@pytest.mark.parametrize("workers", [[], ["--workers", "2:4"]])
def test_scaling_up_needs_a_number_of_workers_and_a_cluster(
    workers: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    wanted = ["--train", "a", "--output", "/x", "--scale-up-within", "5m"]
    result = CliRunner().invoke(run.main, [*wanted, *workers])
    assert result.exit_code == 2
    assert "--scale-up-within needs --workers" in result.output


@pytest.mark.parametrize(
    ("present", "shown"),
    [
        ({"CPU": 6.0, "GPU": 2.0}, ""),
        ({"CPU": 2.0, "GPU": 2.0}, "Waiting for 6 CPU; the cluster has 2"),
        ({"CPU": 9.0}, "Waiting for 2 GPU; the cluster has 0"),
        ({}, "Waiting for 6 CPU, 2 GPU; the cluster has 0, 0"),
    ],
)
def test_a_job_shows_what_it_waits_for_and_what_is_there(
    present: dict[str, float], shown: str
) -> None:
    assert waiting_for({"CPU": 6.0, "GPU": 2.0}, present) == shown


def test_nothing_in_the_package_imports_jobs() -> None:
    for module in (ROOT / "distlstm").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not any(name.split(".")[0] == "jobs" for name in names), module
