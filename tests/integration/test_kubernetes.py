"""The Kubernetes manifests against the schemas of Kubernetes and of the Flink operator's resource."""

import zipfile
from pathlib import Path
from typing import Any

import jgo
import jsonschema
import kubernetes_validate
import pytest
import yaml

from config.loading import load
from jobs.settings import Settings
from serving.settings import ServingSettings

pytestmark = pytest.mark.integration
FOLDER = Path(__file__).resolve().parents[2] / "deploy" / "kubernetes"
# The newest that Maven Central has with its resource in it; newer operators only add to it.
OPERATOR = "org.apache.flink:flink-kubernetes-operator-api:1.10.0"


def documents(*files: str) -> list[dict[str, Any]]:
    return [document for file in files for document in yaml.safe_load_all((FOLDER / file).read_text())]


def merged(base: Any, patch: Any) -> Any:
    """A strategic merge, as far as ours goes: lists of named things by name."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return base | {key: merged(base.get(key), value) for key, value in patch.items()}
    if isinstance(base, list) and isinstance(patch, list):
        named = {thing["name"]: thing for thing in base}
        return list((named | {thing["name"]: merged(named.get(thing["name"]), thing) for thing in patch}).values())
    return patch


FLINK = documents("flink.yaml")[0]
GPU = merged(FLINK, documents("gpu/flink.yaml")[0])


@pytest.mark.parametrize("document", [FLINK, GPU], ids=["plain", "gpu"])
def test_the_job_is_a_resource_that_the_operator_knows(document: dict[str, Any], tmp_path: Path) -> None:
    jar = next(jgo.build(OPERATOR, cache_dir=tmp_path).path.rglob("flink-kubernetes-operator-api*.jar"))
    with zipfile.ZipFile(jar) as archive:
        crd = yaml.safe_load(archive.read("META-INF/fabric8/flinkdeployments.flink.apache.org-v1.yml"))
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    closed(schema)
    spec = dict(document["spec"])
    # That operator is older than this Flink.
    assert spec.pop("flinkVersion") == "v2_3"
    jsonschema.validate(spec, schema, jsonschema.Draft202012Validator)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(spec | {"jobs": {}}, schema, jsonschema.Draft202012Validator)


def closed(schema: Any) -> None:
    """Have a misspelt field be a fault: Kubernetes drops it."""
    if isinstance(schema, dict):
        if "properties" in schema and "x-kubernetes-preserve-unknown-fields" not in schema:
            schema.setdefault("additionalProperties", False)
        # The generator's word for a number or a text.
        if schema.pop("x-kubernetes-int-or-string", False):
            schema.pop("anyOf", None)
            schema.pop("type", None)
        for inner in schema.values():
            closed(inner)


OTHERS = [d for d in documents("flink.yaml", "serving.yaml", "gpu/taskmanagers.yaml") if "flink" not in d["apiVersion"]]


@pytest.mark.parametrize("document", OTHERS, ids=lambda document: f"{document['kind']}-{document['metadata']['name']}")
def test_the_rest_are_resources_of_kubernetes(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, "1.33", strict=True)


def test_kustomize_names_every_file() -> None:
    for folder in (FOLDER, FOLDER / "gpu"):
        named = yaml.safe_load((folder / "kustomization.yaml").read_text())
        files = {*named["resources"], *(patch["path"] for patch in named.get("patches", []))} - {".."}
        assert files == {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}


def test_the_settings_of_the_cluster_are_valid(tmp_path: Path) -> None:
    (settings,) = (d["data"]["headrace.toml"] for d in documents("flink.yaml") if d["kind"] == "ConfigMap")
    file = tmp_path / "headrace.toml"
    file.write_text(settings)
    assert load(Settings, file).kafka.bootstrap_servers == "kafka:9092"
    assert load(ServingSettings, file).serving.host == "0.0.0.0"
    assert FLINK["spec"]["job"]["args"][-1] == "/etc/headrace/headrace.toml"


def test_the_cluster_has_every_setting_that_the_job_needs() -> None:
    ours = yaml.safe_load((FOLDER.parent / "flink" / "config.yaml").read_text())
    given = FLINK["spec"]["flinkConfiguration"]
    # The resources of the pods say how much memory there is, and the settings of the job how parallel it is.
    elsewhere = {"jobmanager.memory.process.size", "taskmanager.memory.process.size", "parallelism.default"}
    for key, value in ours.items():
        if key not in elsewhere:
            assert given[key] == (str(value).lower() if isinstance(value, bool) else str(value)), key
    assert given["python.executable"] == "/opt/venv/bin/python"
    logging = FLINK["spec"]["logConfiguration"]["log4j-console.properties"]
    assert logging == (FOLDER.parent / "flink" / "log4j-console.properties").read_text()
