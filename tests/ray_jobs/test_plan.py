"""A command that is to be submitted: what is checked, what is sent, and what is shown of it."""

from pathlib import Path

import click
import pytest

from distlstm.cli import cli
from distlstm.config import load_config
from distlstm.errors import UserError
from distlstm.ray_jobs.package import packed
from distlstm.ray_jobs.plan import COMMANDS, planned

PACKAGE = Path(__file__).parents[2] / "distlstm"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_relative_paths_are_taken_below_the_directory_of_the_user(here: Path) -> None:
    words = ["train", "data/*.csv", "s3://lake/more", "--output", "m", "--validation", "v.csv"]
    plan = planned([*words, "--delimiter", r"\t", "--text-column", "m", "--no-gpu"], cli.commands)
    assert plan.words == (
        *("train", f"{here}/data/*.csv", "s3://lake/more", "--output", f"{here}/m"),
        *("--validation", f"{here}/v.csv", "--text-column", "m", "--delimiter", r"\t", "--no-gpu"),
    )
    assert plan.output == f"{here}/m"


def test_the_job_understands_its_command_as_the_user_gave_it(here: Path) -> None:
    words = ["batch-predict", "/in.csv", "--model=/m", "--output", "/o", "--null-value", "-"]
    plan = planned([*words, "--null-value", "", "--top-k", "3", "--workers", "2:4"], cli.commands)
    name, *arguments = plan.words
    params = cli.commands[name].make_context(name, list(arguments)).params
    assert (params["null_values"], params["top_k"]) == (("-", ""), 3)
    assert str(params["workers"]) == "2:4"


def test_the_config_is_sent_as_the_one_that_the_options_make_of_it(here: Path) -> None:
    Path("c.toml").write_text("[model]\nhidden_dim = 24\n[text]\nvectors = 'v.txt'\n")
    options = ["--config", "c.toml", "--set", "model.num_layers=2", "--seed", "7"]
    plan = planned(["tune", "d.csv", "--output", "s", "--trials", "3", *options], cli.commands)
    assert plan.words[1:] == (
        *(f"{here}/d.csv", "--output", f"{here}/s", "--trials", "3"),
        *("--config", "config.toml"),
    )
    with packed(plan) as parcel:
        sent = load_config(parcel.work / "config.toml")
    assert (sent.model.hidden_dim, sent.model.num_layers, sent.seed) == (24, 2, 7)
    assert sent.text.vectors == f"{here}/v.txt"


def test_no_value_of_a_setting_is_shown_or_is_in_the_entrypoint() -> None:
    secret = "text.vectors=s3cret"
    plan = planned(["train", "/d", "--output", "/m", "--set", secret], cli.commands)
    assert plan.shown == "distlstm train /d --output /m --set 'text.vectors=***'"
    assert "s3cret" not in plan.entrypoint


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "No command is given. Submit one of: train"),
        (["predict", "--model", "m"], "`predict` cannot be submitted"),
        (["no-such"], "`no-such` cannot be submitted"),
        (
            ["train", "d", "--output", "m", "--set", "model.hiden_dim=3"],
            "Did you mean model.hidden",
        ),
        (
            ["train", "d", "--output", "m", "--config", "no.toml"],
            "Cannot read the config file no.t",
        ),
        (["train", "d", "--output", "m", "--header", "a,a"], "header"),
        (["train", "d", "--output", "m", "--address", "x"], "Give --address before the command"),
    ],
)
def test_what_is_wrong_is_an_error_of_its_own(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        planned(words, cli.commands)


@pytest.mark.parametrize(
    "words",
    [
        ["train", "d"],
        ["train", "--output", "m"],
        ["train", "d", "--output", "m", "--otput"],
        ["tune", "d", "--output", "ftp://m"],
        ["batch-predict", "d", "--output", "m", "--model", "m", "--top-k", "0"],
    ],
)
def test_a_wrong_option_is_the_usage_error_of_the_command_itself(words: list[str]) -> None:
    with pytest.raises(click.UsageError) as there:
        planned(words, cli.commands)
    with pytest.raises(click.UsageError) as here:
        cli.commands[words[0]].make_context(f"distlstm {words[0]}", words[1:])
    assert there.value.format_message() == here.value.format_message()


def test_every_command_that_can_be_submitted_is_one() -> None:
    assert set(COMMANDS) <= set(cli.commands)


def test_the_whole_package_is_sent_and_nothing_else_that_lies_in_it(here: Path) -> None:
    plan = planned(["verify", "/o"], cli.commands)
    with packed(plan) as parcel:
        sent = {file.name: file.bytes for file in parcel.files()}
    needed = [path for path in PACKAGE.rglob("*") if path.suffix in {".py", ".html", ".css", ".js"}]
    for path in [*needed, PACKAGE / "py.typed"]:
        assert sent[f"distlstm/{path.relative_to(PACKAGE)}"] == path.stat().st_size
    assert not any("__pycache__" in name or "/." in name for name in sent)


def test_the_copies_are_gone_afterwards(here: Path) -> None:
    with packed(planned(["verify", "/o"], cli.commands)) as parcel:
        assert parcel.work.is_dir()
    assert not parcel.work.exists()
    assert not parcel.package.parent.exists()
