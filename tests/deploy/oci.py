"""Runs a Pod's container with runc, which runs containers on most nodes of Kubernetes.

There is no image here: the container sees this machine's system, Python and repository, read-only.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.running import wait_until

# Of this machine, where the image has its own.
SYSTEM = ("/bin", "/etc", "/lib", "/lib64", "/sbin", "/usr")
NAMESPACES = ("pid", "network", "ipc", "uts", "mount")
CAPABILITIES = ("bounding", "effective", "inheritable", "permitted", "ambient")
# As containerd has them.
MASKED = ("/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware")
READ_ONLY = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")


@dataclass(frozen=True)
class Container:
    """A container that runs; ``said()`` is its output so far."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    def said(self) -> str:
        return self.log.read_text()

    def has_begun(self) -> bool:
        """Whether commands can run in it. AssertionError if it has ended."""
        assert self.process.poll() is None, self.said()
        state = ["runc", "state", self.name]
        done = subprocess.run(state, capture_output=True, timeout=60, check=False)
        return done.returncode == 0 and json.loads(done.stdout)["status"] == "running"

    def run(self, *command: str) -> str:
        """The output of ``command`` in the container, as `kubectl exec` or a probe runs it."""
        done = subprocess.run(
            ["runc", "exec", self.name, *command],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def terminate(self) -> None:
        """Send SIGTERM, as the kubelet does."""
        subprocess.run(["runc", "kill", self.name, "TERM"], timeout=60, check=True)


@contextlib.contextmanager
def running(
    folder: Path,
    pod: Any,
    command: list[str],
    mounts: Mapping[str, Path],
    seccomp: Any,
) -> Iterator[Container]:
    """The only container of the Pod's spec ``pod``, whose entry point is ``command``.

    ``mounts`` are folders by path, also of its volumes; its other volumes are empty. ``seccomp`` is
    a profile in the form of runc.
    """
    (folder / "rootfs").mkdir(parents=True)
    name = f"vision-{os.getpid()}"
    configuration = _configuration(pod, command, mounts, seccomp)
    (folder / "config.json").write_text(json.dumps(configuration))
    log = folder / "said.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["runc", "run", "--bundle", str(folder), name],
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
    container = Container(name, process, log)
    try:
        wait_until(container.has_begun)
        yield container
    finally:
        delete = ["runc", "delete", "--force", name]
        subprocess.run(delete, capture_output=True, timeout=60, check=False)
        process.wait(60)


def _configuration(
    pod: Any, command: list[str], mounts: Mapping[str, Path], seccomp: Any
) -> dict[str, Any]:
    [container] = pod["containers"]
    security, own = pod["securityContext"], container["securityContext"]
    assert own["capabilities"] == {"drop": ["ALL"]}
    given = {variable["name"]: variable["value"] for variable in container.get("env", ())}
    environment = {"PATH": "/usr/bin:/bin", **given}
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": security["runAsUser"], "gid": security["runAsGroup"]},
            "args": [*command, *container["args"]],
            "env": [f"{key}={value}" for key, value in environment.items()],
            "cwd": "/var/lib/vision",
            "capabilities": {key: [] for key in CAPABILITIES},
            "noNewPrivileges": not own["allowPrivilegeEscalation"],
        },
        "root": {"path": "rootfs", "readonly": own["readOnlyRootFilesystem"]},
        "hostname": "vision",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            _tmpfs("/dev", "mode=755"),
            _tmpfs("/dev/shm", "nodev", "mode=1777"),
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro"]},
            *(_read_only(path, Path(path)) for path in (*SYSTEM, sys.base_prefix)),
            *(
                _read_only(path, mounts[path])
                if path in mounts
                else _tmpfs(path, "nodev", "mode=2777", f"gid={security['fsGroup']}")
                for path in [each["mountPath"] for each in container["volumeMounts"]]
            ),
            *(
                _read_only(path, source)
                for path, source in mounts.items()
                if path not in [each["mountPath"] for each in container["volumeMounts"]]
            ),
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in NAMESPACES],
            "maskedPaths": MASKED,
            "readonlyPaths": READ_ONLY,
            "seccomp": seccomp,
        },
    }


def _read_only(path: str, source: Path) -> dict[str, Any]:
    options = ["rbind", "ro", "nosuid"]
    return {"destination": path, "type": "bind", "source": str(source), "options": options}


def _tmpfs(path: str, *options: str) -> dict[str, Any]:
    return {
        "destination": path, "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", *options],
    }  # fmt: skip
