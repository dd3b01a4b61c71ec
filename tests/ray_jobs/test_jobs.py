"""Jobs on a real cluster with a token, as a user: the command line in processes of its own."""

import doctest
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import distlstm
from tests.nodes import command_line, descendants
from tests.ports import free_port
from tests.ray_jobs.cluster import SECONDS, JobsCluster, jobs_cluster, user_of_no_cluster
from tests.stages.conftest import write_rows

pytestmark = pytest.mark.ray
SMALL = """
[model]
hidden_dim = 12
embedding_dim = 12
"""
LONG = [
    *("train", "many.parquet", "--output", "long", "--config", "small.toml", "--workers", "1"),
    *("--set", "training.max_epochs=90", "--set", "training.min_epochs=90"),
    *("--set", "training.patience=90"),
    *("--set", "model.wide=false"),
]
"""It trains for minutes."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[JobsCluster]:
    with jobs_cluster() as cluster:
        yield cluster


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a user, with what must not be sent beside the config."""
    path = tmp_path_factory.mktemp("user")
    write_rows(path / "data.parquet", 300, 1)
    write_rows(path / "many.parquet", 20_000, 1)
    (path / "small.toml").write_text(SMALL)
    (path / ".env").write_text("AWS_SECRET_ACCESS_KEY=of-the-user\n")
    (path / "id_rsa").write_text("a key\n")
    (path / ".git").mkdir()
    (path / ".git/config").write_text("[core]\n")
    return path


@pytest.fixture(autouse=True)
def _in_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)


def until(is_so: Callable[[], bool]) -> None:
    """Wait for something; processes are asked, so this is no busy loop."""
    end = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.3)


def wait_for_line(cluster: JobsCluster, id_: str, text: str) -> None:
    """Wait until the log of a job has a text."""
    end = time.monotonic() + SECONDS
    while text not in (log := cluster.run("jobs", "logs", id_).stdout):
        assert time.monotonic() < end, log
        time.sleep(0.3)


def line_with(process: "subprocess.Popen[str]", text: str) -> str:
    """Read the output of a process up to a line that has a text."""
    assert process.stdout is not None
    read = []
    for line in process.stdout:
        read.append(line)
        if text in line:
            return line
    pytest.fail(f"no {text!r} in {''.join(read)}{process.communicate()[1]}")


def id_in(text: str) -> str:
    found = re.search(r"(?:train|tune|evaluate|verify|batch-predict)-[0-9a-f]{8}", text)
    assert found is not None, text
    return found[0]


def job_process(cluster: JobsCluster, command: str) -> tuple[str, str]:
    """The Python of the job that runs, and its PYTHONPATH."""
    (pid,) = (
        pid
        for pid in descendants(cluster.process.pid)
        if f" -m distlstm {command} " in command_line(pid)
    )
    variables = Path(f"/proc/{pid}/environ").read_bytes().decode().split("\0")
    (path,) = (each for each in variables if each.startswith("PYTHONPATH="))
    return command_line(pid).partition(" ")[0], path.removeprefix("PYTHONPATH=")


def test_a_dry_run_lists_what_would_be_sent_and_needs_no_cluster(here: Path) -> None:
    nowhere = user_of_no_cluster()
    words = ["train", "data.parquet", "--output", "m", "--config", "small.toml"]
    sent = nowhere.json("submit", "--dry-run", "--", *words)
    names = [file["name"] for file in sent["files"]]
    own = [name for name in names if not name.startswith("distlstm/")]
    assert own == ["config.toml", "start.sh"]
    assert all(file["bytes"] >= 0 for file in sent["files"])
    suffixes = {name.rpartition(".")[2] for name in names}
    assert suffixes <= {"py", "html", "css", "js", "sh", "toml", "typed"}
    shown = nowhere.run("submit", "--dry-run", "--", *words)
    assert shown.returncode == 0
    for text in ("config.toml", "distlstm/ (version", "in all", str(here), "Nothing was sent."):
        assert text in shown.stdout
    for text in (".env", ".git", "id_rsa"):
        assert text not in shown.stdout


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "data.parquet", "--output", "m", "--otput"], "No such option '--otput'"),
        (["train", "data.parquet", "--output", "m", "--set", "model.x=1"], "Unknown config key"),
    ],
)
def test_a_wrong_command_is_found_before_the_cluster_is_asked(
    words: list[str], message: str
) -> None:
    nowhere = user_of_no_cluster()
    done = nowhere.run("submit", "--", *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert nowhere.address not in done.stderr


def test_without_a_cluster_or_its_token_the_error_says_what_to_do(
    cluster: JobsCluster, tmp_path: Path
) -> None:
    wrong = cluster.run("jobs", RAY_AUTH_TOKEN="s3cret-of-another-cluster")
    assert wrong.returncode == 2
    assert "does not accept the token of RAY_AUTH_TOKEN" in wrong.stderr
    assert "s3cret" not in wrong.stderr + wrong.stdout

    none = cluster.run("jobs", RAY_AUTH_TOKEN=None, RAY_AUTH_MODE=None, HOME=str(tmp_path))
    assert none.returncode == 2
    assert "wants a token, and there is none here. Set RAY_AUTH_TOKEN" in none.stderr

    nowhere = cluster.run("jobs", "--address", f"http://127.0.0.1:{free_port()}")
    assert nowhere.returncode == 2
    assert "No Ray cluster answers at http://127.0.0.1:" in nowhere.stderr
    for done in (wrong, none, nowhere):
        assert done.stderr.startswith("Error: ")
        assert len(done.stderr.splitlines()) == 1


def test_the_token_may_be_in_the_file_where_ray_keeps_it(
    cluster: JobsCluster, tmp_path: Path
) -> None:
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray/auth_token").write_text(f"{cluster.token}\n")
    done = cluster.run("jobs", RAY_AUTH_TOKEN=None, RAY_AUTH_MODE=None, HOME=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(scope="module")
def trained(cluster: JobsCluster, here: Path) -> "subprocess.CompletedProcess[str]":
    """A submitted training, followed to its end."""
    options = ["--config", here / "small.toml", "--set", "training.max_epochs=2", "--workers", "1"]
    words = ["train", here / "data.parquet", "--output", here / "model", *options]
    return cluster.run("submit", "--name", "first try", "--", *words)


def test_a_submitted_training_is_followed_to_its_end_and_its_model_is_there(
    cluster: JobsCluster, here: Path, trained: "subprocess.CompletedProcess[str]"
) -> None:
    done = trained
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^epoch  2 of up to 2: .* accuracy", done.stdout, re.MULTILINE)
    assert "entrypoint" not in done.stdout
    assert json.loads((here / "model/model.json").read_text())["model"]["hidden_dim"] == 12

    job = cluster.json("jobs", "status", id_in(done.stderr))
    assert (job["name"], job["state"], job["exit_code"]) == ("first try", "succeeded", 0)
    assert (job["progress"], job["output"]) == ("epoch 2 of up to 2", f"{here}/model")
    assert re.fullmatch(r"best accuracy 0\.\d+|best accuracy 1\.0+", job["figure"])
    assert datetime.fromisoformat(job["started"]) < datetime.fromisoformat(job["ended"])
    assert "training.max_epochs=***" in job["command"]
    assert distlstm.load_model(here / "model").labels


def test_the_exit_code_is_that_of_the_command_and_its_error_is_shown(cluster: JobsCluster) -> None:
    done = cluster.run("submit", "--", "evaluate", "data.parquet", "--model", "no-model")
    assert done.returncode == 2
    assert "Error: " in done.stdout
    assert "no-model" in done.stdout
    assert f"{id_in(done.stderr)} failed, exit code 2." in done.stderr


def test_a_job_that_is_no_longer_watched_goes_on_until_it_is_stopped_and_then_resumes(
    cluster: JobsCluster, here: Path
) -> None:
    watching = cluster.start("submit", "--", *LONG)
    line_with(watching, "epoch 1 of up to 90")
    (python, path) = job_process(cluster, "train")
    assert python == str(Path(sys.prefix) / "bin/python3")
    assert "py_modules_files" in path.partition(":")[0]  # the package that was sent
    watching.send_signal(signal.SIGINT)
    _, err = watching.communicate(timeout=SECONDS)
    id_ = id_in(err)
    assert watching.returncode == 130
    assert f"{id_} goes on." in err
    assert f"distlstm jobs logs -f {id_}" in err
    assert f"distlstm jobs stop {id_}" in err

    again = cluster.run("submit", "--", *LONG)
    assert again.returncode == 2
    assert "Another command is at work on" in again.stdout

    listed = {job["id"]: job for job in cluster.json("jobs")["jobs"]}
    assert (listed[id_]["state"], listed[id_in(again.stderr)]["state"]) == ("running", "failed")
    assert re.match(r"epoch \d+ of up to 90", listed[id_]["progress"])
    table = cluster.run("jobs", "list").stdout
    assert re.search(rf"{id_} +train +running +epoch", table)

    following = cluster.start("jobs", "logs", "-f", id_)
    line_with(following, "epoch 1 of up to 90")
    stopped = cluster.run("jobs", "stop", id_)
    assert (stopped.returncode, stopped.stdout) == (0, "")
    assert f"{id_} stopped, exit code 130. What is finished is kept" in stopped.stderr
    following.communicate(timeout=SECONDS)
    assert following.returncode == 130
    wait_for_line(cluster, id_, "Interrupted.")

    resumed = cluster.run("submit", "--no-follow", "--json", "--", *LONG)
    id_ = json.loads(resumed.stdout)["id"]
    wait_for_line(cluster, id_, "Resuming")
    assert cluster.json("jobs", "stop", id_)["state"] == "stopped"


def test_a_job_that_is_not_there_is_named(cluster: JobsCluster) -> None:
    for words in (["status"], ["logs"], ["logs", "-f"], ["stop"]):
        done = cluster.run("jobs", *words, "train-00000000")
        assert (done.returncode, done.stdout) == (2, "")
        assert "There is no job train-00000000" in done.stderr


@pytest.mark.usefixtures("trained")
def test_the_examples_of_the_api_give_what_they_show(
    cluster: JobsCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", cluster.token)
    before = dict(os.environ)
    names = {"distlstm": distlstm, "cluster": cluster.address}
    in_order = (distlstm.submit, distlstm.jobs, distlstm.job, distlstm.job_log, distlstm.stop_job)
    for function in in_order:
        (test,) = doctest.DocTestFinder(recurse=False).find(
            function, name=function.__name__, globs=dict(names)
        )
        shown: list[str] = []
        outcome = doctest.DocTestRunner(verbose=False).run(test, out=shown.append)
        assert (outcome.attempted > 0, outcome.failed) == (True, 0), "".join(shown)
    with pytest.raises(distlstm.UserError, match="There is no job train-1"):
        distlstm.job("train-1", address=cluster.address)
    assert dict(os.environ) == before


@pytest.mark.fault
@pytest.mark.usefixtures("trained")
def test_a_job_that_was_killed_is_submitted_again_and_carries_on(
    cluster: JobsCluster, here: Path
) -> None:
    (here / "lake").mkdir()
    for i in range(30):
        write_rows(here / f"lake/{i:02}.parquet", 20_000, i)
    words = ["batch-predict", "lake", "--model", "model", "--output", "labels"]
    watching = cluster.start("submit", "--", *words, "--workers", "1")
    until(lambda: len(list((here / "labels").glob("*.parquet"))) > 2)
    for pid in descendants(cluster.process.pid):
        if f"distlstm batch-predict {here}" in command_line(pid):
            os.kill(pid, signal.SIGKILL)
    _, err = watching.communicate(timeout=SECONDS)
    assert watching.returncode == 128 + signal.SIGKILL, err

    done = cluster.run("submit", "--", *words, "--workers", "1")
    assert done.returncode == 0, done.stdout
    reused = re.search(r"(\d+) parts written, (\d+) reused", done.stdout)
    assert reused is not None
    assert int(reused[2]) > 0
    assert sum(pq.read_metadata(p).num_rows for p in (here / "labels").glob("*.parquet")) == 600_000
