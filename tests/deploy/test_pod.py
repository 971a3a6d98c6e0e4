"""The container that the manifests describe, run by runc: as another user, read-only, filtered."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from PIL import Image

from handlers.pictures.sandbox import LAYERS
from serving import certificates
from tests.debian import require
from tests.deploy import oci, tiny
from tests.deploy.manifests import of_kind
from tests.deploy.secret import Secret
from tests.deploy.test_kubernetes import USER, template, with_seccomp
from tests.running import ROOT, START_S, wait_until

pytestmark = pytest.mark.slow

YAML = "minWorkers: 1\nmaxWorkers: 1\nbatchSize: 2\nmaxBatchDelay: 1\nresponseTimeout: 120\n"
STORE = "/opt/vision/model_store"
RUN = ("--run-dir", "/var/lib/vision")
MODULE = ("env", f"PYTHONPATH={ROOT}", f"{ROOT}/.venv/bin/python", "-m", "serving")
# As the image's entry point, which adds its own folders.
ENTRY = [
    *MODULE, "serve", "--config", f"{ROOT}/config.properties", *RUN, "--model-store", STORE
]  # fmt: skip
STATUS = (*MODULE, "status", "--json", *RUN, "--config", f"{ROOT}/config.properties")
FIRST, SECOND = "first-key-of-alice-0123", "second-key-of-alice-012"


@pytest.fixture(scope="module")
def pod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pod]:
    """The Pod of cpu/ with seccomp/, its container running."""
    require("runc")
    if os.geteuid():
        pytest.skip("runc needs root here")
    folder = tmp_path_factory.mktemp("pod")
    folder.chmod(0o755)
    store = folder / "store"
    store.mkdir()
    store.chmod(0o755)
    tiny.write(store / "tiny.mar", YAML)
    issued = certificates.issue_server(folder / "tls", ["localhost"])
    chain = {"tls.crt": issued.path.read_text(), "tls.key": issued.key_path.read_text()}
    keys = Secret(folder / "keys", {"keys.txt": f"alice: {FIRST}\n"}, USER)
    Secret(folder / "secret", chain, USER)
    client = folder / "client"
    client.mkdir()
    client.chmod(0o755)
    (client / "ca.pem").write_bytes((folder / "tls" / "ca.pem").read_bytes())
    Image.new("RGB", (64, 64), "teal").save(client / "small.png")
    (folder / "kustomization").mkdir()
    objects = with_seccomp(folder / "kustomization")
    mounts = {
        str(ROOT): ROOT,
        STORE: store,
        "/keys": folder / "keys",
        "/tls": folder / "secret",
        "/client": client,
    }
    profile = of_kind(objects, "SeccompProfile")["spec"]
    spec = template(objects)["spec"]
    with oci.running(folder / "bundle", spec, ENTRY, mounts, profile) as container:
        yield Pod(container, keys, spec)


@dataclass(frozen=True)
class Pod:
    container: oci.Container
    keys: Secret
    spec: Any

    def probe(self, kind: str) -> int:
        """The status of the answer to a probe."""
        get = self.spec["containers"][0][f"{kind}Probe"]["httpGet"]
        assert get["port"] == "metrics"
        return int(self.curl(f"http://127.0.0.1:8082{get['path']}"))

    def predict(self, key: str) -> int:
        """The status of a prediction over TLS with ``key``."""
        url = "https://localhost:8080/predictions/tiny"
        upload = ("--upload-file", "/client/small.png", "--cacert", "/client/ca.pem")
        return int(self.curl(*upload, "--header", f"authorization: Bearer {key}", url))

    def curl(self, *arguments: str) -> str:
        shown = ("--silent", "--output", "/dev/null", "--write-out", "%{http_code}")
        command = ["sh", "-c", 'curl "$@" || true', "curl", "--max-time", "30", *shown, *arguments]
        return self.container.run(*command)


def test_the_container_of_the_pod_serves(pod: Pod) -> None:
    """Every layer of the decoders' sandbox is there below the profile."""
    container = pod.container
    wait_until(lambda: container.has_begun() and pod.probe("startup") == 200, START_S)
    assert pod.probe("readiness") == 200
    assert pod.probe("liveness") == 200
    assert pod.predict(FIRST) == 200
    wait_until(lambda: pod.predict(SECOND) == 401, 30)

    status = json.loads(container.run(*STATUS))
    assert status["models"]["tiny"]["sandbox"] == list(LAYERS)
    found = container.run("sh", "-c", "grep -h . /proc/1/status; touch /x || echo read-only")
    assert re.search(r"^Uid:\s+10001", found, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", found, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", found, re.MULTILINE)
    assert "read-only" in found

    # A changed Secret counts without a restart.
    pod.keys.replace({"keys.txt": f"alice: {SECOND}\n"})
    wait_until(lambda: pod.predict(SECOND) == 200, 30)
    wait_until(lambda: pod.predict(FIRST) == 401, 30)

    container.terminate()
    assert container.process.wait(60) == 0, container.said()
    assert container.said().endswith("stopped\n")
