"""Tests of the Airflow DAG and of the Argo workflow, each read by a library of its own."""

import json
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from hera.workflows.models import CronWorkflow

from distlstm.cli import cli

ROOT = Path(__file__).parents[2]
AIRFLOW = os.environ.get("AIRFLOW_PYTHON")


def check(label: list[str], verify: list[str]) -> None:
    """Check that two commands are those of a night, with options that distlstm has."""
    assert (label[:2], verify[:2]) == (["distlstm", "batch-predict"], ["distlstm", "verify"])
    for _, name, *arguments in (label, verify):
        options = {word.partition("=")[0] for word in arguments if word.startswith("--")}
        known = {flag for param in cli.commands[name].params for flag in param.opts}
        assert options <= known
        assert "--json" in options


@pytest.mark.skipif(
    AIRFLOW is None, reason="AIRFLOW_PYTHON names no Python of an environment with Airflow"
)
def test_airflow_reads_the_dag_and_runs_verify_after_batch_predict(tmp_path: Path) -> None:
    reader = Path(__file__).parent / "read_dag.py"
    done = subprocess.run(
        [str(AIRFLOW), str(reader), str(ROOT / "jobs/airflow_dag.py")],
        env=os.environ | {"AIRFLOW_HOME": str(tmp_path), "PYTHONPATH": ""},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    dag = json.loads(done.stdout.splitlines()[-1])
    assert (dag["errors"], dag["dags"]) == ({}, ["distlstm_nightly"])
    assert dag["tasks"]["label"]["next"] == ["check"]
    check(*(shlex.split(dag["tasks"][task]["command"]) for task in ("label", "check")))


def argo() -> dict[str, Any]:
    text = (ROOT / "jobs/argo-workflow.yaml").read_text(encoding="utf-8")
    return dict(yaml.safe_load(text))


def test_argos_models_read_every_field_of_the_workflow() -> None:
    read = CronWorkflow.model_validate(argo()).model_dump_json(by_alias=True, exclude_none=True)
    assert plain(json.loads(read)) == plain(argo())


def plain(value: Any) -> Any:
    """With numbers as text, as Argo also accepts them."""
    if isinstance(value, dict):
        return {name: plain(each) for name, each in value.items()}
    if isinstance(value, list):
        return [plain(each) for each in value]
    return value if isinstance(value, bool) else str(value)


def test_argo_runs_verify_after_batch_predict_on_the_same_output_one_night_at_a_time() -> None:
    spec = argo()["spec"]
    assert spec["concurrencyPolicy"] == "Forbid"
    workflow = spec["workflowSpec"]
    templates = {template["name"]: template for template in workflow["templates"]}
    order = [step["template"] for (step,) in templates[workflow["entrypoint"]]["steps"]]
    assert order == ["label", "check"]
    label, verify = (templates[name]["container"] for name in order)
    check([*label["command"], *label["args"]], [*verify["command"], *verify["args"]])
    given = {each["name"] for each in workflow["arguments"]["parameters"]}
    assert given == {"input", "model", "output"}
    assert f"--output={verify['args'][0]}" in label["args"]
