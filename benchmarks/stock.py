"""Stock TorchServe as its documentation has it, with the same untrained networks.

``resnet101`` is its own ``image_classifier`` on a plain trace, ``cyclegan`` the handler of
``plain_cyclegan.py``. Whatever has a default keeps it, but for the ports and, where asked for, the
number of workers: the default is one per core, each with a thread per core.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import requests
import torch
from PIL import Image

from benchmarks.errors import BenchError
from benchmarks.processes import free_addresses, group
from benchmarks.server import MODELS, Server
from export.checkpoints import load
from export.networks import registered
from serving.config import Config
from serving.machine import find_java
from serving.management import Management
from serving.runfolder import RunFolder

START_TIMEOUT_S = 300
POLL_S = 0.5
HANDLERS = {
    "resnet101": "image_classifier",
    "cyclegan": str(Path(__file__).with_name("plain_cyclegan.py")),
}
# image_classifier imports captum for explanations, which no prediction asks for; with this beside
# it in the archive the bench needs no package that the bundle does not.
_CAPTUM = """\
class IntegratedGradients:
    def __init__(self, model):
        pass
"""


@contextlib.contextmanager
def stock(store: Path, logs: Path, device: str, workers: int | None = None) -> Iterator[Server]:
    """A server of both models on the archives in ``store``, every worker of it ready.

    Its logs are in ``logs``. ``device`` is cpu, or auto for TorchServe's own choice; ``workers`` of
    each model, by default TorchServe's own choice.
    """
    logs.mkdir(parents=True, exist_ok=True)
    # Short: worker sockets live there, whose paths may have 107 bytes. Its launcher keeps a pid
    # file for the whole machine in TMPDIR.
    with tempfile.TemporaryDirectory(prefix="stock-", ignore_cleanup_errors=True) as folder:
        config = _config(Path(folder), device, workers)
        command = [
            str(Path(sys.executable).with_name("torchserve")),
            "--start", "--foreground", "--ncs", "--disable-token-auth",
            "--ts-config", str(config.path), "--model-store", str(store.resolve()),
            "--models", *(f"{model}={model}.mar" for model in MODELS),
        ]  # fmt: skip
        environment = {
            **os.environ,
            "JAVA_HOME": str(find_java().path.resolve().parents[1]),
            "TMPDIR": folder,
            "TEMP": folder,
            "LOG_LOCATION": str(logs.resolve()),
            "METRICS_LOCATION": str(logs.resolve()),
        }
        environment.pop("PYTHONPATH", None)
        log = logs / "torchserve.log"
        started = time.monotonic()
        with group(command, cwd=Path(folder), environment=environment, log=log) as process:
            management = Management(config, RunFolder(Path(folder)))
            for model in MODELS:
                _wait_until_ready(config, management, model, process, started, log)
            yield Server(config, management, time.monotonic() - started)


def archive(store: Path, newer_than: Path) -> None:
    """Both archives in ``store``, made again where they are older than ``newer_than``."""
    store.mkdir(parents=True, exist_ok=True)
    for model in MODELS:
        mar = store / f"{model}.mar"
        sources = [newer_than, Path(__file__), Path(__file__).with_name("plain_cyclegan.py")]
        if not mar.exists() or mar.stat().st_mtime < max(p.stat().st_mtime for p in sources):
            _archive(model, store)


def _archive(model: str, store: Path) -> None:
    network = load(registered()[model], "random")
    side = network.spec.crop or network.spec.resize
    with tempfile.TemporaryDirectory(prefix="archive-") as folder:
        stage = Path(folder)
        pt, extra, temporary = stage / f"{model}.pt", stage / "extra", stage / "tmp"
        extra.mkdir()
        temporary.mkdir()
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # TorchScript is deprecated
            torch.jit.trace(network.module, torch.rand(1, 3, side, side)).save(pt)
        if network.spec.labels:
            names = {str(i): label for i, label in enumerate(network.spec.labels)}
            (extra / "index_to_name.json").write_text(json.dumps(names))
            (extra / "captum").mkdir()
            (extra / "captum" / "__init__.py").touch()
            (extra / "captum" / "attr.py").write_text(_CAPTUM)
        command = [
            sys.executable, "-m", "model_archiver.model_packaging",
            "--model-name", model, "--version", "1.0", "--serialized-file", str(pt),
            "--handler", HANDLERS[model], "--export-path", str(store), "--force",
        ]  # fmt: skip
        if any(extra.iterdir()):
            command += ["--extra-files", str(extra)]
        # It stages in $TMPDIR/<model name>, and first deletes whatever has that name.
        environment = {**os.environ, "TMPDIR": str(temporary)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchError(f"torch-model-archiver failed on {model}:\n{done.stderr.strip()[-2000:]}")


def _config(folder: Path, device: str, workers: int | None) -> Config:
    values = free_addresses()
    if workers is not None:
        values["default_workers_per_model"] = str(workers)
    if device == "cpu":
        values["number_of_gpu"] = "0"
    path = folder / "config.properties"
    path.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    return Config.read(path)


def _wait_until_ready(
    config: Config,
    management: Management,
    model: str,
    process: subprocess.Popen[bytes],
    started: float,
    log: Path,
) -> None:
    """Return once every worker of ``model`` is ready and a picture is truly answered."""
    refusal = "not asked yet"
    picture = io.BytesIO()
    Image.new("RGB", (64, 64)).save(picture, "PNG")
    while time.monotonic() < started + START_TIMEOUT_S:
        if process.poll() is not None:
            raise BenchError(f"stock TorchServe ended with status {process.returncode}: see {log}")
        with contextlib.suppress(requests.RequestException):
            workers = management.workers(model)
            if workers and all(worker.status == "READY" for worker in workers):
                url = f"{config.inference}/predictions/{model}"
                response = requests.post(url, data=picture.getvalue(), timeout=60)
                if response.ok:
                    return
                refusal = response.text
        time.sleep(POLL_S)
    raise BenchError(f"stock TorchServe does not serve {model} ({refusal}): see {log}")
