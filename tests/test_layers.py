"""A folder is a layer: what each may import, held."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import distlstm

PACKAGE = Path(distlstm.__file__).parent
BOTTOM = {
    "errors",
    "atomic",
    "regular_file",
    "json_text",
    "storage",
    "config",
    "database_url",
    "reader_options",
    "worker_range",
    "environment",
    "",
}
MAY_IMPORT = {
    "errors": set(),
    "atomic": set(),
    "regular_file": set(),
    "json_text": {"atomic", "regular_file"},
    "storage": {"errors", "atomic", "regular_file"},
    "environment": set(),
    "config": {"errors", "storage", "database_url"},
    "database_url": {"errors"},
    "reader_options": {"errors"},
    "worker_range": {"errors"},
    "options": BOTTOM,
    "text": BOTTOM,
    "model": BOTTOM | {"text"},
    "data": BOTTOM | {"text"},
    "stages": BOTTOM | {"text", "model", "data"},
    "report": BOTTOM | {"text", "model", "data", "stages"},
    "ray_jobs": BOTTOM | {"options"},
    "api": BOTTOM | {"text", "model", "data", "stages", "report", "ray_jobs"},
    "console": BOTTOM | {"text", "stages", "ray_jobs"},
    "demo": BOTTOM | {"data", "stages", "console"},
    "cli_serve": BOTTOM | {"options", "api", "console"},
    "cli_runs": BOTTOM | {"options", "api", "console"},
    "cli": BOTTOM | {"options", "api", "console", "demo", "cli_jobs", "cli_runs", "cli_serve"},
    "cli_jobs": BOTTOM | {"options", "api", "console", "ray_jobs"},
}
ALSO = {"api/jobs.py": {"cli"}}
"""What a module may import besides. The words that `submit` takes are those of the command line."""
WINGS = {
    "run": set(),
    "prediction": {"run"},
    "serving": {"run", "prediction"},
    "listing": {"run", "prediction"},
    "training": {"run"},
    "pretraining": {"run", "training"},
    "tuning": {"run", "training"},
}
"""Folders of `stages/`; the modules beside them are the commands, which may import all wings."""
FORBIDDEN = {
    "text": {"ray", "torch"},
    "model": {"ray"},
    "data": {"torch"},
    "config": {"ray", "torch"},
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def layer_of(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports_of(module: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(module.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "distlstm":
            names |= {f"distlstm.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_a_layer_imports_only_the_layers_below_it(module: Path) -> None:
    layer = layer_of(module)
    if layer in {"__init__", "__main__"}:
        return
    ours = {n.split(".")[1] for n in imports_of(module) if n.startswith("distlstm.")}
    ours -= {"__version__"}
    also = ALSO.get(module.relative_to(PACKAGE).as_posix(), set())
    assert ours <= MAY_IMPORT[layer] | {layer} | also


def test_the_wings_of_stages_are_these() -> None:
    folders = {path.parent.name for path in (PACKAGE / "stages").glob("*/__init__.py")}
    assert folders == set(WINGS)


@pytest.mark.parametrize(
    "module", sorted((PACKAGE / "stages").glob("*/*.py")), ids=lambda m: f"{m.parent.name}/{m.stem}"
)
def test_a_wing_imports_only_the_wings_below_it_and_no_command(module: Path) -> None:
    wing = module.parent.name
    ours = {n.split(".")[2] for n in imports_of(module) if n.startswith("distlstm.stages.")}
    assert ours <= WINGS[wing] | {wing}


@pytest.mark.parametrize("module", MODULES, ids=lambda m: str(m.relative_to(PACKAGE)))
def test_text_and_model_know_no_ray_and_data_no_torch(module: Path) -> None:
    roots = {name.split(".")[0] for name in imports_of(module)}
    assert not roots & FORBIDDEN.get(layer_of(module), set())


def test_only_the_console_prints() -> None:
    printing = {
        str(module.relative_to(PACKAGE))
        for module in MODULES
        for node in ast.walk(ast.parse(module.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "print"
    }
    assert printing == set()


def test_nothing_in_the_package_imports_jobs_or_pickle() -> None:
    roots = {name.split(".")[0] for module in MODULES for name in imports_of(module)}
    assert not roots & {"jobs", "pickle", "cloudpickle", "benchmarks", "tests"}


@pytest.mark.parametrize(
    "module",
    [
        *("stages.train", "stages.batch_predict", "stages.estimate", "stages.verify"),
        *("stages.runs", "stages.serve", "report.kinds"),
    ],
)
def test_what_only_conducts_starts_without_torch(module: str) -> None:
    code = f"import sys, distlstm.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
