"""Commands on directories of strangers: refused at once, in one sentence, before Ray starts.

All commands run one after another in one process of their own, which is ended if one of them hangs.
"""

import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray
from safetensors.torch import load_file, save_file

from distlstm import cli
from distlstm.model.directory import save_model
from tests.commands import Outcome
from tests.model.test_directory import edit, model, partner, sign
from tests.report import directories

SECONDS = 120
Damage = Callable[[Path], None]
"""Changes a file."""


def fifo(file: Path) -> None:
    file.unlink(missing_ok=True)
    os.mkfifo(file)


def device(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.symlink_to("/dev/zero")


def oversized(file: Path) -> None:
    os.truncate(file, 20 * 10**9)  # sparse


ODD_FILES = {fifo: "not a regular file", device: "not a regular file", oversized: "too large"}


def not_a_number(file: Path) -> None:
    tensors = load_file(file)
    tensors["output.bias"][0] = float("nan")
    save_file(tensors, file)
    sign(file.parent, file.name)


def doubled_token(file: Path) -> None:
    file.write_bytes(file.read_bytes().replace(b"\nd\n", b"\nc\n"))
    sign(file.parent, file.name)


def absurd_temperature(file: Path) -> None:
    edit(file.parent, temperature=1e300)


def odd_model_files() -> Iterator[tuple[Damage, str, str]]:
    """A damage, the file that has it, and what the command calls it."""
    yield fifo, "model.json", "not a regular file"
    yield device, "vocabulary.txt", "not a regular file"
    yield fifo, "wide.safetensors", "not a regular file"
    yield oversized, "model.safetensors", "too large"
    yield not_a_number, "model.safetensors", "output.bias"
    yield doubled_token, "vocabulary.txt", "twice"
    yield absurd_temperature, "model.json", "temperature"


MODEL_COMMANDS = (
    ("evaluate", "in.parquet", "--model"),
    ("batch-predict", "in.parquet", "--model"),
    ("train", "in.parquet", "--init"),
    ("predict", "a text", "--model"),
)
REPORTED = {
    "_manifest.json": directories.predictions,
    "study.json": directories.study,
    "trials.parquet": directories.study,
    "epochs.parquet": directories.study,
    "best.toml": directories.study,
    "model.json": directories.model,
    "history.parquet": directories.model,
    "metrics.json": directories.evaluation,
    "errors.parquet": directories.evaluation,
}
WARM_START = ("tune", "in.parquet", "--warm-start")


class Case(NamedTuple):
    """A command on a directory in which one file is damaged."""

    make: Callable[[Path], object]
    damage: Damage
    file: str
    command: tuple[str, ...]
    text: str
    """Part of the answer."""

    @property
    def name(self) -> str:
        return f"{self.command[0]} {self.damage.__name__} {self.file}"


def make_model(path: Path) -> None:
    save_model(model(linear=partner()), path)


def cases() -> Iterator[Case]:
    for damage, file, text in odd_model_files():
        for command in MODEL_COMMANDS:
            yield Case(make_model, damage, file, command, text)
    for damage, text in ODD_FILES.items():
        for file, make in REPORTED.items():
            yield Case(make, damage, file, ("report",), text)
        yield Case(directories.predictions, damage, "_manifest.json", ("verify",), text)
        for file in ("study.json", "trials.parquet"):
            yield Case(directories.study, damage, file, WARM_START, "is not a study")


CASES = {case.name: case for case in cases()}


def run_all(commands: Mapping[str, list[str]]) -> None:
    """Run commands in this process, and print the outcome of each as a line of JSON."""
    ray.init = None  # type: ignore[assignment] (a command that starts Ray fails)
    for name, arguments in commands.items():
        sys.argv, out, err, code = ["distlstm", *arguments], io.StringIO(), io.StringIO(), 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                cli.main()
            except SystemExit as exit_:
                code = int(exit_.code or 0)
        sys.stdout.write(json.dumps([name, code, out.getvalue(), err.getvalue()]) + "\n")
        sys.stdout.flush()


def outcomes_of(commands: Mapping[str, list[str]], directory: Path) -> dict[str, Outcome]:
    """The outcomes of the commands, up to the first that hangs."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", __name__, json.dumps(commands)],
            cwd=directory,
            stdout=output,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        output.seek(0)
        return {name: Outcome(*rest) for name, *rest in map(json.loads, output)}


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    directory = tmp_path_factory.mktemp("hostile")
    pq.write_table(pa.table({"text": ["c d"], "label": ["no"]}), directory / "in.parquet")
    fifo(directory / "config.toml")
    (directory / "config").mkdir()
    commands = {"config": ["train", "in.parquet", "--output", "out", "--config", "config.toml"]}
    for i, (name, case) in enumerate(CASES.items()):
        case.make(directory / str(i))
        case.damage(directory / str(i) / case.file)
        output = ["--output", f"out{i}"] if "in.parquet" in case.command else []
        commands[name] = [*case.command, str(i), *output]
    for name in ("_lock", "part.parquet"):
        directories.predictions(directory / name)
        fifo(directory / name / name)
        commands[name] = ["verify", name]
    return outcomes_of(commands, directory)


@pytest.mark.parametrize("name", CASES)
def test_an_odd_file_is_refused_in_one_sentence(outcomes: dict[str, Outcome], name: str) -> None:
    assert name in outcomes, "this command, or one before it, hangs"
    code, out, err = outcomes[name]
    assert (code, out) == (2, ""), err
    assert CASES[name].text in err
    assert err.startswith("Error: ")
    assert err.count("\n") == 1


def test_a_config_that_is_a_fifo_is_refused(outcomes: dict[str, Outcome]) -> None:
    code, out, err = outcomes["config"]
    assert (code, out) == (2, "")
    assert "config.toml is not a regular file" in err


@pytest.mark.parametrize("name", ["_lock", "part.parquet"])
def test_verify_waits_for_no_other_file(outcomes: dict[str, Outcome], name: str) -> None:
    assert outcomes[name].code == 1
    assert ("part.parquet is not in the manifest" in outcomes[name].out) == (name != "_lock")


def test_json_is_read_from_links_to_regular_files(tmp_path: Path) -> None:
    path = directories.evaluation(tmp_path / "e")
    shutil.move(path / "metrics.json", tmp_path / "elsewhere")
    (path / "metrics.json").symlink_to(tmp_path / "elsewhere")
    assert outcomes_of({"links": ["report", "e"]}, tmp_path)["links"].code == 0


if __name__ == "__main__":
    run_all(json.loads(sys.argv[1]))
