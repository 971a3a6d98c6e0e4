"""Where a request's time goes, stage by stage, from the running server's own metrics.

``http`` is what the client saw and TorchServe did not, the gateway and its queue; ``transfer`` is
what TorchServe saw and the handler did not. Each request of a batch waits for the stages of all. On
a GPU work is asynchronous: what preprocessing starts there ends in ``network``.
"""

from __future__ import annotations

from pathlib import Path

import httpx
import requests
from prometheus_client.parser import text_string_to_metric_families

from handlers.stages import STAGES
from serving.config import Config
from serving.errors import ServingError
from serving.management import Management
from serving.runfolder import RunFolder
from tools.bench.common import FOLDER
from tools.bench.load import Load, measure
from tools.bench.pictures import photographs

SECONDS, BATCH = "vision_stage_seconds", "vision_batch_requests"


def run(folder: RunFolder) -> int:
    """Profile every model of the server of ``folder``; ServingError if it does not answer."""
    config = folder.require_config()
    picture = photographs(FOLDER)["1280x720"]
    try:
        for model in Management.of(folder).models():
            for clients in (1, 8):
                head, stages = profile(config, model, picture, clients, 10)
                total = sum(stages.values())
                print(f"{model}, {clients} client(s): {head}")
                for stage, ms in stages.items():
                    bar = "#" * round(40 * ms / total)
                    print(f"  {stage:<10} {ms:>9.1f} ms {ms / total:>6.1%}  {bar}", flush=True)
    except (httpx.HTTPError, requests.RequestException) as error:
        raise ServingError(f"the server of {folder.path} does not answer: {error}") from error
    return 0


def profile(
    config: Config, model: str, picture: Path, clients: int, seconds: float
) -> tuple[str, dict[str, float]]:
    """What ``clients`` saw, as a phrase, and the mean ms of a request by stage."""
    before = _counters(config.metrics, model)
    result = measure(Load("", config.local_inference, model, picture, seconds, clients))
    after = _counters(config.metrics, model)
    gained = {key: value - before.get(key, 0.0) for key, value in after.items()}
    requests_, batches = gained["ts_inference_requests_total", ""], gained[f"{BATCH}_count", ""]
    # The parser makes the names of counters end in _total.
    total = gained["ts_inference_latency_microseconds_total", ""] / requests_ / 1e3
    queue = gained["ts_queue_latency_microseconds_total", ""] / requests_ / 1e3
    handler = {stage: 1e3 * gained[f"{SECONDS}_sum", stage] / batches for stage in STAGES}
    http = max(1e3 * clients / result.rate - total, 0.0)  # the mean cycle of a client
    transfer = max(total - queue - sum(handler.values()), 0.0)
    rate, members = result.rate, gained[f"{BATCH}_sum", ""] / batches
    head = f"{rate:.1f} requests/s, p50 {result.ms[0]:.0f} ms, {members:.1f} requests a batch"
    return head, {"http": http, "queue": queue, "transfer": transfer, **handler}


def _counters(url: str, model: str) -> dict[tuple[str, str], float]:
    """The counters of ``model``, by name and stage; counters of requests are left out."""
    text = requests.get(f"{url}/metrics", timeout=30).text
    samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
    return {
        (s.name, s.labels.get("stage", "")): s.value
        for s in samples
        if model in s.labels.values() and not {"le", "protocol"} & s.labels.keys()
    }
