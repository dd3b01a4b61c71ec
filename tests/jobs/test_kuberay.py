"""Tests of the manifests for KubeRay, against the fields that its custom resources have."""

import copy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from distlstm.cli import cli
from jobs import run

ROOT = Path(__file__).parents[2]
MANIFESTS = ["rayjob", "raycronjob"]
FIELDS: dict[str, dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parent / "kuberay_fields.yaml").read_text(encoding="utf-8")
)
PUBLISHED = ROOT.parent / "shared/schemas/ray.io_rayjobs.yaml"
ATOMS: dict[str, tuple[type, ...]] = {"string": (str,), "integer": (int,), "boolean": (bool,)}
VALUES: dict[str, tuple[type, ...]] = {"strings": (str,), "quantities": (str, int)}


def manifest(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / f"jobs/kuberay/{name}.yaml").read_text(encoding="utf-8")))


def ray_job(name: str) -> dict[str, Any]:
    """The spec of the RayJob that a manifest is, or creates."""
    spec = manifest(name)["spec"]
    return dict(spec.get("jobTemplate", spec))


def faults(value: Any, kind: Any, where: str) -> Iterator[str]:
    """Each place where a value differs from what `kuberay_fields.yaml` says of its kind."""
    if isinstance(kind, list):
        for i, each in enumerate(value):
            yield from faults(each, kind[0], f"{where}[{i}]")
    elif kind in ATOMS:
        if type(value) not in ATOMS[kind]:
            yield f"{where} is no {kind}"
    elif kind in VALUES:
        yield from (f"{where}.{k}" for k, v in value.items() if type(v) not in VALUES[kind])
    else:
        known = {name.rstrip("!"): each for name, each in FIELDS[kind].items()}
        yield from (
            f"{where} lacks {n[:-1]}" for n in FIELDS[kind] if n[-1] == "!" and n[:-1] not in value
        )
        yield from (f"{where}.{name} is unknown" for name in value if name not in known)
        for name in value.keys() & known.keys():
            yield from faults(value[name], known[name], f"{where}.{name}")


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_has_only_fields_that_kuberay_has_with_their_types(name: str) -> None:
    parts = manifest(name)
    assert parts["apiVersion"] == "ray.io/v1"
    assert parts["kind"].lower() == name
    assert list(faults(parts["spec"], parts["kind"], name)) == []


def test_a_field_that_is_misspelt_or_has_another_type_is_found() -> None:
    spec = copy.deepcopy(manifest("raycronjob")["spec"])
    del spec["schedule"]
    spec["jobTemplate"]["rayClusterSpec"]["workerGroupSpecs"][0]["minReplicas"] = "1"
    spec["jobTemplate"]["rayClusterSpec"]["authentication"] = {}
    group = "x.jobTemplate.rayClusterSpec.workerGroupSpecs[0]"
    assert sorted(faults(spec, "RayCronJob", "x")) == [
        "x lacks schedule",
        "x.jobTemplate.rayClusterSpec.authentication is unknown",
        f"{group}.minReplicas is no integer",
    ]


@pytest.mark.skipif(not PUBLISHED.exists(), reason="KubeRay's published schemas are not here")
@pytest.mark.parametrize("name", MANIFESTS)
def test_the_published_schema_of_kuberay_accepts_the_job(name: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    definition = yaml.load(PUBLISHED.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader)
    (schema,) = (v["schema"] for v in definition["spec"]["versions"] if v["name"] == "v1")
    spec = schema["openAPIV3Schema"]["properties"]["spec"]
    jsonschema.validate(ray_job(name), closed(spec))


def closed(schema: Any) -> Any:
    """A Kubernetes schema as a JSON schema that refuses unknown fields."""
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    open_ = "properties" not in schema or "x-kubernetes-preserve-unknown-fields" in schema
    extra = {} if open_ else {"additionalProperties": False}
    return extra | {name: closed(each) for name, each in schema.items()}


def groups(name: str) -> list[dict[str, Any]]:
    spec = ray_job(name)["rayClusterSpec"]
    return [spec["headGroupSpec"], *spec["workerGroupSpecs"]]


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_pod_authenticates_scales_and_runs_the_same_image_without_root(name: str) -> None:
    cluster = ray_job(name)["rayClusterSpec"]
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["enableInTreeAutoscaling"] is True
    pods = [group["template"]["spec"] for group in groups(name)]
    containers = [pod["containers"][0] for pod in pods]
    assert len({container["image"] for container in containers}) == 1
    assert all(c["resources"]["limits"] == c["resources"]["requests"] for c in containers)
    assert all(pod["securityContext"]["runAsNonRoot"] for pod in pods)


@pytest.mark.parametrize("name", MANIFESTS)
def test_no_pod_needs_a_shared_disk(name: str) -> None:
    assert "volumes" not in str(groups(name))
    assert "/shared" not in ray_job(name)["entrypoint"]


@pytest.mark.parametrize("name", MANIFESTS)
def test_the_manifest_pins_the_ray_that_is_installed(name: str) -> None:
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8").split()
    assert f"ray=={ray_job(name)['rayClusterSpec']['rayVersion']}" in pins


def test_the_job_runs_the_script_of_the_image_with_options_that_it_has() -> None:
    python, script, *arguments = shlex.split(ray_job("rayjob")["entrypoint"])
    assert python == "python"
    assert (ROOT / Path(script).relative_to("/opt/distlstm")).exists()
    params = run.main.make_context("run.py", arguments).params
    assert params["output"] == "s3://lake/news"
    assert params["workers"] == "2:32"


def test_the_nightly_job_labels_then_verifies_the_same_output() -> None:
    shell, option, script = shlex.split(ray_job("raycronjob")["entrypoint"])
    assert (shell, option) == ("sh", "-c")
    label, check = (shlex.split(command) for command in script.split(" && "))
    assert (label[:2], check[:2]) == (["distlstm", "batch-predict"], ["distlstm", "verify"])
    assert check[2] == label[label.index("--output") + 1]
    known = {flag for param in cli.commands["batch-predict"].params for flag in param.opts}
    assert {word for word in label if word.startswith("--")} <= known
