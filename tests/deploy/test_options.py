"""The arguments of the application, an archive's section `ray:`, and the example of a cluster."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

from deploy.ray.cluster import ENVIRONMENT, GRPC_SERVICES
from deploy.ray.commands import reserved_cpus
from deploy.ray.options import Options, Placement
from export.networks import Serving
from handlers.settings import Settings
from serving.archives import Archive
from serving.errors import ServingError

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "deploy/ray/config.yaml"
KUBERNETES = ROOT / "deploy/kubernetes/ray/rayservice.yaml"
# What no cluster works well without.
NEEDED = {"RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH"}
VALUES = (-1, 0, 0.5, 1, 1.5, 2, 100, 101, float("nan"))


@pytest.mark.parametrize("name", [*Placement.model_fields, "min_replica"])
@pytest.mark.parametrize("value", VALUES)
def test_an_export_refuses_what_ray_would_refuse(name: str, value: float) -> None:
    """A network's file is checked at export, without Ray, by the same rules."""
    accepted = []
    for check in (lambda: Serving(ray={name: value}), lambda: Placement.of({"ray": {name: value}})):
        try:
            check()
            accepted.append(True)
        except (ValueError, ValidationError):
            accepted.append(False)
    assert accepted[0] == accepted[1]


@pytest.mark.parametrize(
    ("serving", "replicas"),
    [
        (Serving(), (1, 1)),
        (Serving(workers=3), (3, 3)),
        (Serving(ray={"max_replicas": 4}), (1, 4)),
        (Serving(workers=2, ray={"min_replicas": 3}), (3, 3)),
        (Serving(ray={"min_replicas": 2, "max_replicas": 4}), (2, 4)),
    ],
)
def test_an_archive_says_how_many_replicas_there_are(
    serving: Serving, replicas: tuple[int, int]
) -> None:
    placement = Placement.of(yaml.safe_load(serving.to_yaml()))
    assert (placement.min_replicas, placement.max_replicas) == replicas


def test_more_workers_than_replicas_are_refused_at_the_export() -> None:
    with pytest.raises(ValueError, match="max_replicas is 2, below min_replicas, 3"):
        Serving(workers=3, ray={"max_replicas": 2})


def test_a_fixed_number_of_replicas_counts_more_than_the_archive() -> None:
    placement = Placement.of({"ray": {"min_replicas": 2, "max_replicas": 4}}, workers=1)
    assert (placement.min_replicas, placement.max_replicas) == (1, 1)


def test_what_stands_beside_the_source_counts_more_than_the_archive() -> None:
    source = {"source": "a.mar", "ray": {"max_replicas": 3, "max_replicas_per_node": 1}}
    [chosen] = Options.model_validate({"archives": [source]}).archives
    section = {"min_replicas": 2, "max_replicas": 4, "num_cpus": 2}
    placement = Placement.of({"ray": section}, chosen.ray)
    assert (placement.min_replicas, placement.max_replicas) == (2, 3)
    assert (placement.max_replicas_per_node, placement.num_cpus) == (1, 2)


def archive(**yaml: object) -> Archive:
    return Archive(Path("net.mar"), "net", "classify", "untrained", yaml, Settings(), {}, "1.0")


def test_one_machine_has_cpus_for_every_replica_at_its_most() -> None:
    """Else a replica would wait for ever, and `make ray-serve` with it."""
    own = archive(ray={"num_cpus": 2.5, "max_replicas": 3})
    assert reserved_cpus([own, archive(minWorkers=2, maxWorkers=2)], None) == 10
    assert reserved_cpus([own, archive()], 4) == 14


def test_a_wrong_section_of_an_archive_is_refused_with_its_path() -> None:
    with pytest.raises(ServingError, match=r"(?s)net\.mar: its section `ray`.*num_cpu\b"):
        reserved_cpus([archive(ray={"num_cpu": 2})], None)


def test_an_address_needs_its_digest() -> None:
    with pytest.raises(ValidationError, match="needs its sha256"):
        Options.model_validate({"archives": [{"source": "https://example.com/a.mar"}]})


def test_ray_and_the_application_take_the_example() -> None:
    """Ray ignores keys that it does not know, so the parsed configuration must have all of ours."""
    example = yaml.safe_load(EXAMPLE.read_text())
    parsed = ServeDeploySchema.model_validate(example)
    assert parsed.model_dump(exclude_unset=True) == example
    assert example["grpc_options"]["grpc_servicer_functions"] == GRPC_SERVICES
    [application] = example["applications"]
    Options.model_validate(application["args"])


def environments() -> Iterator[tuple[str, dict[str, str]]]:
    """What the processes of Ray are told in the documentation and in each Pod."""
    exports = re.findall(r"^export (.*)", (ROOT / "docs/scaling.md").read_text(), re.MULTILINE)
    yield "docs", dict(pair.split("=", 1) for line in exports for pair in line.split())
    cluster = yaml.safe_load(KUBERNETES.read_text())["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        [container] = group["template"]["spec"]["containers"]
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        yield group.get("groupName", "head"), environment


ENVIRONMENTS = dict(environments())


@pytest.mark.parametrize("place", ENVIRONMENTS)
def test_a_cluster_has_the_environment_of_make_ray_serve(place: str) -> None:
    environment = ENVIRONMENTS[place]
    shared = ENVIRONMENT.keys() & environment
    assert shared >= NEEDED
    assert {name: environment[name] for name in shared} == {n: ENVIRONMENT[n] for n in shared}
