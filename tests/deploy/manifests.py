"""Reads, renders and validates manifests of deploy/kubernetes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml

FOLDER = Path(__file__).parents[2] / "deploy/kubernetes"
KUBERNETES = "1.37"
_KUBECTL = Path(sys.executable).with_name("kubectl")


def render(folder: Path) -> list[Any]:
    """What `kubectl apply -k` would send for ``folder``."""
    command = [str(_KUBECTL), "kustomize", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def of_kind(objects: list[Any], kind: str) -> Any:
    """The only one of ``objects`` of that kind."""
    [found] = [each for each in objects if each["kind"] == kind]
    return found


def validate(manifest: Any) -> None:
    """Raises ValidationError unless ``manifest`` is Kubernetes' own, without unknown fields."""
    kubernetes_validate.validate(manifest, KUBERNETES, strict=True)


def check_restricted(pod: Any, user: int) -> None:
    """AssertionError unless ``pod``, a Pod's spec, meets the Pod security standard `restricted`."""
    security = pod["securityContext"]
    assert security["runAsNonRoot"]
    assert security["runAsUser"] == user
    assert security["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
    for container in pod["containers"]:
        check_container(container["securityContext"])


def check_container(security: dict[str, Any]) -> None:
    """The same for the security context of a container, with a read-only file system."""
    assert security["allowPrivilegeEscalation"] is False
    assert security["readOnlyRootFilesystem"] is True
    assert security["capabilities"] == {"drop": ["ALL"]}
