"""The manifests of deploy/kubernetes: rendered by kubectl, valid, and in agreement with the server.

Kubernetes' own objects are checked against Kubernetes' schemas, those of KEDA and of the Prometheus
operator against models that were made from theirs. No package has the schemas of KServe and of the
security profiles operator. Nothing here needs a cluster.
"""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject
from cloudcoil.models.prometheus_operator.v1 import PodMonitor, PrometheusRule

from export.networks import registered
from serving import preflight
from serving.gateway.credentials import Credentials
from tests.deploy.manifests import FOLDER, check_restricted, of_kind, render, validate
from tests.deploy.secret import Secret
from tests.deploy.started import configured, longest_end, planned
from tests.running import ROOT

CUSTOM: dict[str, Any] = {
    "ScaledObject": ScaledObject,
    "PodMonitor": PodMonitor,
    "PrometheusRule": PrometheusRule,
}
UNKNOWN = {"ServingRuntime", "InferenceService", "SeccompProfile"}
# The uid in deploy/docker/Dockerfile.
USER = 10001
LABELS = {"app.kubernetes.io/name": "vision"}


def with_seccomp(folder: Path) -> list[Any]:
    """cpu/ with the component seccomp/, as its comment says."""
    relative = os.path.relpath(FOLDER, folder.resolve())
    lines = {"resources": [f"{relative}/cpu"], "components": [f"{relative}/seccomp"]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(lines))
    return render(folder)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The objects by folder."""
    folders = ("cpu", "gpu", "keda", "kserve", "monitoring", "ray")
    objects = {name: render(FOLDER / name) for name in folders}
    return objects | {"seccomp": with_seccomp(tmp_path_factory.mktemp("seccomp"))}


@pytest.fixture(params=["cpu", "gpu", "keda", "kserve", "seccomp"])
def overlay(request: pytest.FixtureRequest, rendered: dict[str, list[Any]]) -> list[Any]:
    objects: list[Any] = rendered[request.param]
    return objects


def template(objects: list[Any]) -> Any:
    """The Pod that ``objects`` lead to; KServe makes it of two."""
    if any(each["kind"] == "Deployment" for each in objects):
        return of_kind(objects, "Deployment")["spec"]["template"]
    runtime = of_kind(objects, "ServingRuntime")["spec"]
    ours = {key: runtime[key] for key in ("containers", "volumes")}
    predictor = of_kind(objects, "InferenceService")["spec"]["predictor"]
    own = {"minReplicas", "maxReplicas", "autoScaling", "model"}
    spec = {key: value for key, value in predictor.items() if key not in own}
    return {"metadata": {"labels": runtime["labels"]}, "spec": {**ours, **spec}}


def container(objects: list[Any]) -> Any:
    [found] = template(objects)["spec"]["containers"]
    return found


def test_every_object_is_valid(rendered: dict[str, list[Any]]) -> None:
    for objects in rendered.values():
        for manifest in objects:
            kind = manifest["kind"]
            if kind in CUSTOM:  # the model drops a field that it does not know
                model = CUSTOM[kind].model_validate(manifest)
                assert model.model_dump(by_alias=True, exclude_unset=True, mode="json") == manifest
            elif kind not in (UNKNOWN | {"RayService"}):
                validate(manifest)


def test_kserves_pod_is_valid(rendered: dict[str, list[Any]]) -> None:
    validate({"apiVersion": "v1", "kind": "Pod", **template(rendered["kserve"])})


def test_everything_selects_the_pods(overlay: list[Any]) -> None:
    assert template(overlay)["metadata"]["labels"].items() >= LABELS.items()
    for each in overlay:
        spec = each.get("spec", {})
        match each["kind"]:
            case "Service":
                assert spec["selector"] == LABELS
            case "NetworkPolicy":
                assert spec["podSelector"] == {"matchLabels": LABELS}
            case "Deployment" | "PodDisruptionBudget":
                assert spec["selector"] == {"matchLabels": LABELS}
    for spread in template(overlay)["spec"].get("topologySpreadConstraints", ()):
        assert spread["labelSelector"] == {"matchLabels": LABELS}


def test_the_operator_scrapes_the_pods(rendered: dict[str, list[Any]]) -> None:
    monitor = of_kind(rendered["monitoring"], "PodMonitor")["spec"]
    assert monitor["selector"] == {"matchLabels": LABELS}
    assert LABELS[monitor["jobLabel"]] == "vision"  # the alerts' job
    [endpoint] = monitor["podMetricsEndpoints"]
    assert endpoint["port"] == "metrics"


def test_the_operators_alerts_are_those_of_prometheus(rendered: dict[str, list[Any]]) -> None:
    """If not: the head of prometheusrule.yaml has the command."""
    alerts = yaml.safe_load((ROOT / "deploy/monitoring/alerts.yml").read_text())
    assert of_kind(rendered["monitoring"], "PrometheusRule")["spec"] == alerts


def test_ports_are_those_of_the_server(overlay: list[Any]) -> None:
    addresses = configured(*container(overlay)["args"]).addresses
    assert {host for host, _ in addresses.values()} == {"0.0.0.0"}
    ports = {port["name"]: port["containerPort"] for port in container(overlay)["ports"]}
    assert ports == {
        "rest": addresses["inference_address"][1],
        "grpc": addresses["grpc_inference_port"][1],
        "metrics": addresses["metrics_address"][1],
    }
    for service in (each for each in overlay if each["kind"] == "Service"):
        led = {port["port"]: port["targetPort"] for port in service["spec"]["ports"]}
        assert led == {8080: "rest", 7070: "grpc"}
    for probe, path in (("startup", "/readyz"), ("readiness", "/readyz"), ("liveness", "/livez")):
        assert container(overlay)[f"{probe}Probe"]["httpGet"] == {"path": path, "port": "metrics"}


def test_the_server_takes_the_arguments(overlay: list[Any]) -> None:
    """Clients need keys, even if the image's own configuration is open to everybody."""
    used = configured(*container(overlay)["args"])
    assert used.values["open_to_network"] == "false"
    credentials = Credentials.of(used)
    assert preflight.check_exposure(used, credentials, gateway=True) in (
        "",
        "keys and pictures cross the network unencrypted: set tls_certificate and tls_key",
    )
    mounts = {mount["mountPath"]: mount for mount in container(overlay)["volumeMounts"]}
    files = [credentials.keys, *(credentials.certificate or ())]
    for path in files:
        assert path is not None
        assert mounts[str(path.parent)]["readOnly"]
    volumes = {volume["name"]: volume for volume in template(overlay)["spec"]["volumes"]}
    assert volumes["keys"]["secret"] == {"secretName": "keys", "defaultMode": 0o400}


def test_pods_are_what_the_image_is_made_for(overlay: list[Any]) -> None:
    """Its user, ports and writable folders."""
    dockerfile = (ROOT / "deploy/docker/Dockerfile").read_text()
    security = template(overlay)["spec"]["securityContext"]
    assert f"USER {security['runAsUser']}:{security['runAsGroup']}\n" in dockerfile
    exposed = [str(port["containerPort"]) for port in container(overlay)["ports"]]
    assert f"EXPOSE {' '.join(exposed)}\n" in dockerfile
    [state] = re.findall(r'"--run-dir", "([^"]+)"', dockerfile)
    volumes = {volume["name"]: volume for volume in template(overlay)["spec"]["volumes"]}
    mounts = {mount["mountPath"]: mount["name"] for mount in container(overlay)["volumeMounts"]}
    assert all("emptyDir" in volumes[mounts[path]] for path in (state, "/tmp"))


def test_a_changed_secret_is_noticed(tmp_path: Path) -> None:
    """Even if the file has as many bytes as before."""
    secret = Secret(tmp_path / "keys", {"keys.txt": "alice: first-key-of-alice-0"}, os.getgid())
    credentials = Credentials(tmp_path / "keys" / "keys.txt", None, None)
    before = credentials.changed_at()
    secret.replace({"keys.txt": "alice: other-key-of-alice-0"})
    assert credentials.changed_at() != before


def test_a_start_may_take_as_long_as_the_server_allows(overlay: list[Any]) -> None:
    probe = container(overlay)["startupProbe"]
    longest = max(network.serving.startup_timeout_s for network in registered().values())
    assert probe["periodSeconds"] * probe["failureThreshold"] > longest


def test_a_pod_has_time_to_drain(overlay: list[Any]) -> None:
    before = container(overlay)["lifecycle"]["preStop"]["sleep"]["seconds"]
    needed = before + longest_end(configured(*container(overlay)["args"]))
    assert template(overlay)["spec"]["terminationGracePeriodSeconds"] >= needed


def test_pods_are_as_restricted_as_their_namespace_demands(overlay: list[Any]) -> None:
    namespace = of_kind(overlay, "Namespace")
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    spec = template(overlay)["spec"]
    check_restricted(spec, USER)
    account = of_kind(overlay, "ServiceAccount")
    assert spec["serviceAccountName"] == account["metadata"]["name"]
    assert not spec["automountServiceAccountToken"]
    assert not account["automountServiceAccountToken"]


def test_strangers_reach_the_gateway_alone(overlay: list[Any]) -> None:
    policy = of_kind(overlay, "NetworkPolicy")["spec"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    clients, prometheus = policy["ingress"]
    assert clients["from"] == [{"podSelector": {}}]
    assert [port["port"] for port in clients["ports"]] == ["rest", "grpc"]
    [peer] = prometheus["from"]
    assert peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == "monitoring"
    assert [port["port"] for port in prometheus["ports"]] == ["metrics"]
    [names] = policy["egress"]
    assert {port["port"] for port in names["ports"]} == {53}


def test_the_disruption_budget_protects_something(rendered: dict[str, list[Any]]) -> None:
    predictor = of_kind(rendered["kserve"], "InferenceService")["spec"]["predictor"]
    for name, replicas in {
        "cpu": of_kind(rendered["cpu"], "Deployment")["spec"]["replicas"],
        "gpu": of_kind(rendered["gpu"], "Deployment")["spec"]["replicas"],
        "keda": of_kind(rendered["keda"], "ScaledObject")["spec"]["minReplicaCount"],
        "kserve": predictor["minReplicas"],
    }.items():
        budget = of_kind(rendered[name], "PodDisruptionBudget")["spec"]
        assert budget["maxUnavailable"] < replicas
    assert "replicas" not in of_kind(rendered["keda"], "Deployment")["spec"]  # KEDA's


def test_images_have_a_version(overlay: list[Any]) -> None:
    assert re.fullmatch(
        r"registry\.example\.com/vision(:\d+\.\d+\.\d+(-gpu)?|@sha256:[0-9a-f]{64})",
        container(overlay)["image"],
    )


def test_resources(overlay: list[Any]) -> None:
    """Whole cores, as many as the server's threads, and memory for its limits."""
    resources = container(overlay)["resources"]
    limits = resources["limits"]
    assert resources["requests"] == {key: limits[key] for key in ("cpu", "memory")}
    assert math.floor(float(limits["cpu"])) == float(limits["cpu"])
    [gibibytes] = re.findall(r"^(\d+)Gi$", limits["memory"])
    assert planned(configured(*container(overlay)["args"]), int(gibibytes) * 2**30).warnings == ()


def test_the_gpu_overlay_asks_for_one(rendered: dict[str, list[Any]]) -> None:
    gpu, cpu = rendered["gpu"], rendered["cpu"]
    assert container(gpu)["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container(gpu)["image"] == f"{container(cpu)['image']}-gpu"
    assert "--device=gpu" in container(gpu)["args"]
    assert "--device=cpu" in container(cpu)["args"]
    [toleration] = template(gpu)["spec"]["tolerations"]
    assert toleration["key"] == "nvidia.com/gpu"


def test_the_number_of_replicas_follows_requests_in_flight(rendered: dict[str, list[Any]]) -> None:
    """Not a counter, and series that the server has."""
    [trigger] = of_kind(rendered["keda"], "ScaledObject")["spec"]["triggers"]
    predictor = of_kind(rendered["kserve"], "InferenceService")["spec"]["predictor"]
    [metric] = predictor["autoScaling"]["metrics"]
    query = trigger["metadata"]["query"]
    assert metric["external"]["metric"]["query"] == query
    assert metric["external"]["target"]["averageValue"] == trigger["metadata"]["threshold"]
    assert metric["external"]["target"]["type"] == trigger["metricType"]
    series = set(re.findall(r"vision_\w+", query))
    assert series
    documented = (ROOT / "docs/metrics.md").read_text()
    for name in series:
        assert re.search(rf"^\|[^|]*`{name}`[^|]*\| gauge \|", documented, re.MULTILINE)


def test_the_seccomp_profile_is_that_of_the_pod(rendered: dict[str, list[Any]]) -> None:
    profile = of_kind(rendered["seccomp"], "SeccompProfile")
    assert template(rendered["seccomp"])["spec"]["securityContext"]["seccompProfile"] == {
        "type": "Localhost",
        "localhostProfile": f"operator/{profile['metadata']['name']}.json",
    }
    assert profile["spec"]["defaultAction"] == "SCMP_ACT_ERRNO"
