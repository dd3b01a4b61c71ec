"""Tests of the Dockerfile: there is no Docker here, so it is parsed, and its parts are checked."""

import io
import re
import shlex
from pathlib import Path

import dockerfile_parse
import pytest

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "jobs/Dockerfile"


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, str]]:
    """Each instruction and its value."""
    content = io.BytesIO(DOCKERFILE.read_bytes())
    parser = dockerfile_parse.DockerfileParser(fileobj=content)
    return [(step["instruction"], step["value"]) for step in parser.structure]


def values(steps: list[tuple[str, str]], instruction: str) -> list[str]:
    return [value for name, value in steps if name == instruction]


def test_everything_that_the_image_copies_is_in_the_repository(
    steps: list[tuple[str, str]],
) -> None:
    copied = [name for value in values(steps, "COPY") for name in value.split()[:-1]]
    assert copied
    assert all((ROOT / name).exists() for name in copied)
    assert not [value for value in values(steps, "COPY") if value.split()[0] == "."]


def test_the_image_has_what_an_installation_needs_before_it_installs(
    steps: list[tuple[str, str]],
) -> None:
    (install,) = (i for i, (_, value) in enumerate(steps) if "pip install" in value)
    before = " ".join(value for name, value in steps[:install] if name == "COPY")
    for name in ("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "distlstm"):
        assert name in before.split()


@pytest.mark.parametrize(("index", "extra"), [("", []), ("URL", ["--extra-index-url", "URL"])])
def test_pip_installs_pinned_versions_and_another_torch_by_argument(
    steps: list[tuple[str, str]], index: str, extra: list[str]
) -> None:
    (command,) = (value for value in values(steps, "RUN") if "pip install" in value)
    optional = re.compile(r'\$\{TORCH_INDEX:\+(.*) "\$TORCH_INDEX"\}')
    words = shlex.split(optional.sub(rf"\1 {index}" if index else "", command))
    fixed = ["pip", "install", "--no-cache-dir", "--constraint", "constraints.txt"]
    assert words == [*fixed, *extra, "."]


def test_the_image_runs_as_a_user_who_is_not_root(steps: list[tuple[str, str]]) -> None:
    assert values(steps, "USER")[-1] == "1000"
    assert "--uid 1000" in " ".join(values(steps, "RUN"))


def test_the_image_has_the_python_that_the_package_supports(steps: list[tuple[str, str]]) -> None:
    (image,) = values(steps, "FROM")
    version = re.fullmatch(r"python:(3\.\d+)-slim-\w+", image)
    assert version is not None
    assert f"Python :: {version[1]}" in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
