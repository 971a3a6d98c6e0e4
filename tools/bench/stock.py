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
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path

import httpx
import torch

from export.checkpoints import load
from export.networks import Network
from serving.config import Config
from serving.errors import ServingError
from serving.machine import find_java
from serving.management import Management
from tools.bench.common import TASKS
from tools.bench.load import Load, measure
from tools.bundle import free_addresses, python

START_TIMEOUT_S = 300
# TMPDIR has the workers' sockets, whose paths end at 107 bytes: so it must be short.
_folder = partial(tempfile.TemporaryDirectory, prefix="stock-", ignore_cleanup_errors=True)
# image_classifier imports it for explanations, which no prediction asks for.
CAPTUM = "class IntegratedGradients:\n    def __init__(self, model):\n        pass\n"


def archive(store: Path, networks: Iterable[Network]) -> None:
    """Plain traces, and their archives with the handler of each network's task."""
    stub = store / "stubs" / "captum" / "attr.py"
    stub.parent.mkdir(parents=True, exist_ok=True)
    stub.write_text(CAPTUM)
    for network in networks:
        loaded = load(network, "random")
        side = loaded.spec.crop or loaded.spec.resize
        with _folder() as name, warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # TorchScript is deprecated
            pt, labels = store / f"{network.name}.pt", Path(name, "index_to_name.json")
            torch.jit.trace(loaded.module, torch.rand(1, 3, side, side)).save(pt)
            labels.write_text(json.dumps(dict(enumerate(loaded.spec.labels))))
            options = ["--model-name", network.name, "--version", "1.0", "--force"]
            options += ["--serialized-file", str(pt), "--handler", TASKS[network.task].handler]
            options += ["--extra-files", str(labels)] if loaded.spec.labels else []
            options += ["--export-path", str(store)]
            # The archiver deletes $TMPDIR/<model name>.
            quiet = {"PYTHONWARNINGS": "ignore", "TMPDIR": name}
            python("model_archiver.model_packaging", *options, **quiet)


@contextlib.contextmanager
def stock(store: Path, picture: Path, log: Path, properties: Mapping[str, str]) -> Iterator[str]:
    """The URL of a server, once all its workers are ready and ``picture`` is answered."""
    models = [path.stem for path in store.glob("*.mar")]
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(_folder()))
        path = folder / "config.properties"
        lines = {**free_addresses("inference", "management", "metrics"), **properties}.items()
        path.write_text("".join(f"{key}={value}\n" for key, value in lines))
        command = [str(Path(sys.executable).with_name("torchserve")), "--start", "--foreground"]
        command += ["--ncs", "--disable-token-auth", "--ts-config", str(path)]
        command += ["--model-store", str(store)]
        command += ["--models", *(f"{model}={model}.mar" for model in models)]
        environment = {
            **os.environ,
            "JAVA_HOME": str(find_java().path.resolve().parents[1]),
            "PYTHONPATH": str(store / "stubs"),
            **dict.fromkeys(("TMPDIR", "TEMP", "LOG_LOCATION", "METRICS_LOCATION"), str(folder)),
        }
        output = stack.enter_context(log.open("wb"))
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=output,
            stderr=output, start_new_session=True,
        )  # fmt: skip
        stack.callback(process.wait)
        stack.callback(os.killpg, process.pid, signal.SIGKILL)
        config = Config.read(path)
        http = stack.enter_context(httpx.Client(base_url=config.values["management_address"]))
        management = Management(http)
        deadline, ready = time.monotonic() + START_TIMEOUT_S, False
        while not ready:
            if process.poll() is not None or time.monotonic() > deadline:
                raise ServingError(f"stock TorchServe did not start: see {log}")
            time.sleep(1)
            with contextlib.suppress(httpx.HTTPError, ServingError):
                for model in models:
                    measure(Load("", config.inference, model, picture, seconds=0, clients=1))
                workers = [worker for model in models for worker in management.workers(model)]
                ready = all(worker.status == "READY" for worker in workers)
        yield config.inference
