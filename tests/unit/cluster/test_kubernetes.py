"""Kubernetes manifests by the schemas of Kubernetes and of KubeRay."""

import json
import shlex
from pathlib import Path

import kubernetes_validate
import pytest
import ray
import yaml
from jsonschema import Draft202012Validator
from kubernetes_validate.utils import ValidationError
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

from dms_bench.runtime.submit import _ENTRYPOINT_RESOURCES
from tests.unit.cluster.parsing import CLUSTER, ROOT, commands, parse

VERSION = "1.37"
KUBERAY = json.loads(Path(__file__).with_name("kuberay.json").read_text())
DOCUMENTS = [
    document
    for name in ("kubernetes/storage", "kubernetes/raycluster", "kubernetes/rayjob", "mlflow/kubernetes")
    for document in yaml.safe_load_all((CLUSTER / f"{name}.yaml").read_text())
]
CLUSTERS = [
    document["spec"].get("rayClusterSpec", document["spec"])
    for document in DOCUMENTS
    if document["apiVersion"].startswith("ray.io/")
]


def problems(document):
    schema = Draft202012Validator({**KUBERAY, "$ref": f"#/$defs/{document['kind']}"})
    return [error.message for error in schema.iter_errors(document)]


def check_pod(template):
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, **template}
    kubernetes_validate.validate(pod, VERSION, strict=True)


@pytest.mark.parametrize(
    "document", DOCUMENTS, ids=lambda document: f"{document['kind']}-{document['metadata']['name']}"
)
def test_manifests_are_valid(document):
    if document["apiVersion"].startswith("ray.io/"):
        assert problems(document) == []
    else:
        kubernetes_validate.validate(document, VERSION, strict=True)


def test_pods_of_ray_are_valid():
    assert len(CLUSTERS) == 2
    for cluster in CLUSTERS:
        for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
            check_pod(group["template"])


def test_misspelt_fields_are_refused():
    job = next(document for document in DOCUMENTS if document["kind"] == "RayJob")
    spec = job["spec"]
    assert problems({**job, "spec": {**spec, "backoffLimits": 3}})
    assert problems({**job, "spec": {**spec, "backoffLimit": "3"}})
    rules = [{"policy": "DeletePods", "condition": {"jobStatus": "FAILED"}}]
    assert problems({**job, "spec": {**spec, "deletionStrategy": {"deletionRules": rules}}})
    with pytest.raises(ValidationError):
        check_pod({"spec": {**CLUSTERS[0]["headGroupSpec"]["template"]["spec"], "volume": []}})


@pytest.mark.parametrize("cluster", CLUSTERS, ids=["cluster", "job"])
def test_ray_reads_the_cluster_as_it_is_meant(cluster):
    resource = {"metadata": {"name": "x", "namespace": "y"}, "spec": cluster}
    config = _derive_autoscaling_config_from_ray_cr(resource)
    head, gpu = (config["available_node_types"][name] for name in ("headgroup", "gpu"))
    assert head["resources"]["CPU"] == 0
    assert gpu["resources"]["GPU"] == 1
    assert gpu["min_workers"] == gpu["max_workers"] == 2
    assert cluster["rayVersion"] == ray.__version__
    assert cluster["authOptions"] == {"mode": "token"}


@pytest.mark.parametrize("cluster", CLUSTERS, ids=["cluster", "job"])
def test_every_node_has_the_shared_storage_of_the_claim(cluster):
    claim = next(document for document in DOCUMENTS if document["kind"] == "PersistentVolumeClaim")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["shared"]["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]
        assert {"name": "shared", "mountPath": "/shared"} in pod["containers"][0]["volumeMounts"]


def test_the_job_is_a_command_of_ours_with_its_results_off_the_nodes():
    spec = next(document for document in DOCUMENTS if document["kind"] == "RayJob")["spec"]
    options = parse("dms-bench", shlex.split(spec["entrypoint"])[1:])
    suite = Path(options["suite"])
    assert (ROOT / suite.relative_to("/opt/dms_bench")).exists()
    assert options["storage"].startswith("/shared/")
    services = [document["metadata"]["name"] for document in DOCUMENTS if document["kind"] == "Service"]
    assert options["tracking"] == "http://mlflow:5000"
    assert "mlflow" in services
    assert json.loads(spec["entrypointResources"]) == _ENTRYPOINT_RESOURCES


def test_deletion_rules_let_workers_go_before_the_cluster():
    """As KubeRay itself demands when it takes the job (its validation is not in the schema)."""
    spec = next(document for document in DOCUMENTS if document["kind"] == "RayJob")["spec"]
    assert "shutdownAfterJobFinishes" not in spec
    ttl = {}
    for rule in spec["deletionStrategy"]["deletionRules"]:
        (status,) = rule["condition"].keys() - {"ttlSeconds"}
        ttl[rule["condition"][status], rule["policy"]] = rule["condition"]["ttlSeconds"]
    assert len(ttl) == len(spec["deletionStrategy"]["deletionRules"])
    assert ttl["FAILED", "DeleteWorkers"] < ttl["FAILED", "DeleteCluster"]


def test_selectors_find_their_pods_and_secrets_come_from_outside():
    labels = [document["spec"]["template"]["metadata"]["labels"] for document in DOCUMENTS if _is_workload(document)]
    for document in DOCUMENTS:
        if document["kind"] == "Service":
            assert document["spec"]["selector"] in labels
        if _is_workload(document):
            assert document["spec"]["selector"]["matchLabels"] in labels
            for container in document["spec"]["template"]["spec"]["containers"]:
                for variable in container["env"]:
                    if any(word in variable["name"] for word in ("PASSWORD", "SECRET")):
                        assert "secretKeyRef" in variable["valueFrom"]


def _is_workload(document):
    return document["kind"] in ("Deployment", "StatefulSet")


def test_commands_in_the_readme_parse():
    for words in commands((CLUSTER / "kubernetes" / "README.md").read_text(), "dms-bench"):
        parse("dms-bench", words)
