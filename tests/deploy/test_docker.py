"""The files of deploy/docker, without a start: test_shipping.py runs the image's entry."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from serving.config import Config
from serving.gateway.credentials import Credentials
from serving.preflight import check_exposure
from tests.deploy.image import DOCKERFILE, STEPS, last, steps
from tools.portable.contents import Product

FOLDER = DOCKERFILE.parent
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
BIN = Path(sys.executable).parent


def hadolint(path: Path) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "hadolint"), "--no-color", str(path)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_hadolint_has_nothing_to_say(tmp_path: Path) -> None:
    assert hadolint(DOCKERFILE).stdout == ""
    wrong = tmp_path / "Dockerfile"
    wrong.write_text(DOCKERFILE.read_text().replace('["--device", "cpu"]', "--device cpu"))
    assert "DL3025" in hadolint(wrong).stdout


def test_the_image_has_the_bundle_that_make_writes() -> None:
    [add] = [step.words.split()[0] for step in STEPS if step.name == "ADD"]
    assert add == f"dist/{Product.read().full_name}.tar.gz"
    copied = {step.words.split()[0] for step in STEPS if step.name == "COPY"} - {"--from=installed"}
    ignored = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    assert ignored[1:] == ["*", "!dist/*.tar.gz", *(f"!{name}" for name in sorted(copied))]
    assert Product.read().version in COMPOSE["services"]["server"]["image"]


def test_the_last_stages_install_nothing_and_run_as_another_user() -> None:
    for stage in ("cpu", "gpu"):
        runs = [s.words for s in STEPS if s.name == "RUN" and s.stage in ("server", stage)]
        assert not re.search(r"apt|pip|install\.py|run install", " ".join(runs))
        assert last("USER", "server", stage).words == "10001:10001"
        assert last("CMD", "server", stage).command == ["--device", stage]
        assert last("ENTRYPOINT", "server", stage).command[0] == "/opt/vision/run"


def test_a_continued_line_is_one_step() -> None:
    assert [s.words for s in steps("FROM a AS b\nRUN one \\\n    && two\n")][1] == "one && two"


def test_the_configuration_of_the_image_opens_every_port(tmp_path: Path) -> None:
    path = tmp_path / "config.properties"
    path.write_text("\n".join(
        (folder / name).read_text() for folder, name in
        ((FOLDER.parents[1], "config.properties"), (FOLDER, "container.properties"))
    ))  # fmt: skip
    config = Config.read(path)
    ports = {str(port) for _, port in config.addresses.values()}
    assert {host for host, _ in config.addresses.values()} == {"0.0.0.0"}
    assert set(last("EXPOSE", "server").words.split()) == ports
    assert "everybody" in check_exposure(config, Credentials.of(config), gateway=True)


def test_compose_is_valid() -> None:
    command = [str(BIN / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec"]
    done = subprocess.run(
        [*command, str(FOLDER / "compose.yaml")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", COMPOSE["services"])
def test_a_service_is_reached_from_this_machine_alone(name: str) -> None:
    service = COMPOSE["services"][name]
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_the_server_may_write_only_where_it_must() -> None:
    server = COMPOSE["services"]["server"]
    assert server["read_only"] is True
    [volume] = server["volumes"]
    assert volume.split(":")[1] in last("VOLUME", "server").words
    assert server["tmpfs"][0].startswith("/tmp:")


def test_prometheus_and_grafana_get_the_files_of_monitoring() -> None:
    mounted = {
        volume.split(":")[0]
        for service in COMPOSE["services"].values()
        for volume in service["volumes"]
        if volume.startswith(".")
    }
    assert {name for name in mounted if not (FOLDER / name).exists()} == set()
    assert {"../monitoring/alerts.yml", "../monitoring/grafana.json"} <= mounted
    ours = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    example = yaml.safe_load((FOLDER.parent / "monitoring/prometheus.yml").read_text())
    for job in (*ours["scrape_configs"], *example["scrape_configs"]):
        del job["static_configs"]
    assert ours == example
