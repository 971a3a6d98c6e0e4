"""Stock TorchServe on the same untrained networks: its documentation's command and every default.

It has a worker per core, each with a thread per core, and runs a plain trace in float32.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path

import requests
import torch

from export.checkpoints import load
from export.networks import registered
from serving.config import Config
from serving.machine import find_java
from serving.management import Management
from serving.runfolder import RunFolder
from tools.bench.common import TASKS, BenchError
from tools.bench.load import Load, measure
from tools.bundle import free_addresses, python

START_TIMEOUT_S = 300
# image_classifier imports it for explanations, which no prediction asks for.
CAPTUM = "class IntegratedGradients:\n    def __init__(self, model):\n        pass\n"


def archive(store: Path, networks: Mapping[str, str]) -> None:
    """Archives of ``networks`` (task by name) with the handler of their task."""
    stub = store / "stubs" / "captum" / "attr.py"
    stub.parent.mkdir(parents=True, exist_ok=True)
    stub.write_text(CAPTUM)
    for model, task in networks.items():
        network = load(registered()[model], "random")
        side = network.spec.crop or network.spec.resize
        labels, pt = store / "index_to_name.json", store / f"{model}.pt"
        labels.write_text(json.dumps(dict(enumerate(network.spec.labels))))
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # TorchScript is deprecated
            torch.jit.trace(network.module, torch.rand(1, 3, side, side)).save(pt)
        options = ["--model-name", model, "--version", "1.0", "--serialized-file", str(pt)]
        options += ["--handler", TASKS[task].handler, "--export-path", str(store), "--force"]
        options += ["--extra-files", str(labels)] if network.spec.labels else []
        python("model_archiver.model_packaging", *options)


@contextlib.contextmanager
def stock(
    store: Path, models: Mapping[str, str], picture: Path, properties: Mapping[str, str]
) -> Iterator[str]:
    """The URL of a server, once all its workers are ready and ``picture`` is answered."""
    with contextlib.ExitStack() as stack:
        # A short path: the workers' sockets are in TMPDIR, and theirs end at 107 bytes.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="stock-")))
        path, log = folder / "config.properties", store / "torchserve.log"
        lines = {**free_addresses(), **properties}.items()
        path.write_text("".join(f"{key}={value}\n" for key, value in lines))
        command = [str(Path(sys.executable).with_name("torchserve")), "--start", "--foreground"]
        command += ["--ncs", "--disable-token-auth", "--ts-config", str(path)]
        command += ["--model-store", str(store.resolve())]
        command += ["--models", *(f"{model}={model}.mar" for model in models)]
        environment = {
            **os.environ,
            "JAVA_HOME": str(find_java().path.resolve().parents[1]),
            "PYTHONPATH": str((store / "stubs").resolve()),
            **dict.fromkeys(("TMPDIR", "TEMP"), str(folder)),
            **dict.fromkeys(("LOG_LOCATION", "METRICS_LOCATION"), str(folder)),
        }
        output = stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, start_new_session=True,
        )  # fmt: skip
        stack.callback(process.wait)
        stack.callback(os.killpg, process.pid, signal.SIGKILL)
        config = Config.read(path)
        management = Management(config, RunFolder(folder))
        deadline = time.monotonic() + START_TIMEOUT_S
        while not all(_is_ready(management, config.inference, model, picture) for model in models):
            if process.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"stock TorchServe did not start: see {log}")
            time.sleep(1)
        yield config.inference


def _is_ready(management: Management, url: str, model: str, picture: Path) -> bool:
    try:
        measure(Load("", url, model, picture, seconds=0, warm=0, clients=1))
        return all(worker.status == "READY" for worker in management.workers(model))
    except (requests.RequestException, BenchError):
        return False
