"""The manifests for KubeRay: valid, consistent with each other, and closed where Ray is open.

Kubernetes' own objects, also those inside the RayService, are checked against Kubernetes' schemas,
and the Serve configuration against Ray's. No package has the schema of a RayService.
"""

from __future__ import annotations

import importlib
from typing import Any

import kubernetes_validate
import pytest
import ray
import yaml
from ray.serve.schema import ServeDeploySchema

from deploy.ray.cluster import ENVIRONMENT, GRPC_SERVICES
from deploy.ray.options import Options
from export.networks import registered
from tests.deploy import manifests
from tests.deploy.manifests import check_container, check_restricted, validate

FOLDER = manifests.FOLDER / "ray"


def read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


SERVICE = read("rayservice.yaml")["spec"]
CLUSTER = SERVICE["rayClusterConfig"]
SERVE = yaml.safe_load(SERVICE["serveConfigV2"])
GROUPS = {
    "head": CLUSTER["headGroupSpec"],
    **{group["groupName"]: group for group in CLUSTER["workerGroupSpecs"]},
}
WORKERS = [group["template"] for name, group in GROUPS.items() if name != "head"]
# The rest is for one machine, or for a server that ends by our own command.
SHARED = {
    "RAY_USAGE_STATS_ENABLED", "RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_HAPROXY_TIMEOUT_CLIENT_S"
}  # fmt: skip


def environment(pod: Any) -> dict[str, str]:
    [container] = pod["spec"]["containers"]
    return {entry["name"]: entry["value"] for entry in container["env"]}


def embedded() -> dict[str, Any]:
    """Kubernetes' objects inside the RayService, as KubeRay creates them."""
    service = {"apiVersion": "v1", "kind": "Service", **SERVICE["serveService"]}
    pods = {
        name: {"apiVersion": "v1", "kind": "Pod", **group["template"]}
        for name, group in GROUPS.items()
    }
    return {"service": service, **pods}


OBJECTS = {
    **{
        path.name: read(path.name)
        for path in sorted(FOLDER.glob("*.yaml"))
        if path.name not in ("rayservice.yaml", "kustomization.yaml")
    },
    **embedded(),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_objects_of_kubernetes_are_valid(name: str) -> None:
    validate(OBJECTS[name])


def test_a_misspelt_field_is_found() -> None:
    wrong = read("archives.yaml")
    wrong["spec"]["accessMode"] = wrong["spec"].pop("accessModes")
    with pytest.raises(kubernetes_validate.ValidationError, match="accessMode"):
        validate(wrong)


def test_kustomize_applies_every_manifest_but_the_pod_that_copies() -> None:
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml", "copy.yaml"}
    assert set(read("kustomization.yaml")["resources"]) == files


def test_ray_takes_the_serve_configuration() -> None:
    """Ray ignores keys that it does not know, so the parsed configuration must have all of ours."""
    assert ServeDeploySchema.model_validate(SERVE).model_dump(exclude_unset=True) == SERVE


def test_the_application_is_ours_and_takes_its_arguments() -> None:
    [application] = SERVE["applications"]
    module, _, name = application["import_path"].partition(":")
    assert callable(getattr(importlib.import_module(module), name))
    Options(**application["args"])
    assert SERVE["grpc_options"]["grpc_servicer_functions"] == GRPC_SERVICES


@pytest.mark.parametrize("name", GROUPS)
def test_ray_is_configured_as_on_one_machine(name: str) -> None:
    assert (
        environment(GROUPS[name]["template"]).items()
        >= {key: ENVIRONMENT[key] for key in SHARED}.items()
    )


def test_the_cluster_runs_the_version_of_ray_that_the_lock_has() -> None:
    assert CLUSTER["rayVersion"] == ray.__version__


def test_clients_find_the_usual_ports() -> None:
    """The ports of `make serve`, led to Serve's: KubeRay has Ray's metrics on the Pods' 8080."""
    serve = {"serve": SERVE["http_options"]["port"], "serve-grpc": SERVE["grpc_options"]["port"]}
    assert 8080 not in serve.values()
    ports = SERVICE["serveService"]["spec"]["ports"]
    assert {port["name"]: port["port"] for port in ports} == {"serve": 8080, "serve-grpc": 7070}
    assert {port["name"]: port["targetPort"] for port in ports} == serve
    for group in GROUPS.values():
        [container] = group["template"]["spec"]["containers"]
        own = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert own.items() >= serve.items()


def test_a_worker_has_time_to_drain() -> None:
    """A replica with less than its response timeout left ends before its replacement is there."""
    longest = max(net.serving.response_timeout_s for net in registered().values())
    for worker in WORKERS:
        drain = int(environment(worker)["RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S"])
        assert drain >= longest + 120
        assert worker["spec"]["terminationGracePeriodSeconds"] >= drain + 20


def test_policies_select_the_pods() -> None:
    network, budget = read("network.yaml"), read("disruption.yaml")
    for group in GROUPS.values():
        labels = group["template"]["metadata"]["labels"]
        assert labels.items() >= network["spec"]["podSelector"]["matchLabels"].items()
    for worker in WORKERS:
        labels = {**worker["metadata"]["labels"], "ray.io/node-type": "worker"}  # KubeRay's label
        assert labels.items() >= budget["spec"]["selector"]["matchLabels"].items()


def test_only_the_cluster_and_the_operator_reach_rays_own_ports() -> None:
    cluster, *others = read("network.yaml")["spec"]["ingress"]
    assert cluster == {"from": [{"podSelector": read("network.yaml")["spec"]["podSelector"]}]}
    for rule in others:
        operator = all(
            "kuberay-operator" in str(peer.get("podSelector")) and "namespaceSelector" in peer
            for peer in rule["from"]
        )
        open_ports = {8000, 9000, 8080} | ({8265, 52365} if operator else set())
        assert {port["port"] for port in rule["ports"]} <= open_ports
    assert CLUSTER["authOptions"] == {"mode": "token"}


def test_pods_are_as_restricted_as_their_namespace_demands() -> None:
    labels = read("namespace.yaml")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    pods = [group["template"]["spec"] for group in GROUPS.values()]
    for pod in [*pods, read("copy.yaml")["spec"]]:
        check_restricted(pod, user=1000)
    check_container(CLUSTER["autoscalerOptions"]["securityContext"])
