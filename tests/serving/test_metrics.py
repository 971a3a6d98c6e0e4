"""The handlers' metrics, in seconds, as Prometheus reads them, and a profile made of them."""

from __future__ import annotations

import re
from pathlib import Path

import requests
from prometheus_client.parser import text_string_to_metric_families

from handlers.stages import STAGES
from tests.routes import post
from tests.running import Running
from tools.bench.profile import profile


def test_every_stage_is_a_histogram_in_seconds(server: Running, jpeg: bytes) -> None:
    assert post(server, "resnet101", data=jpeg).status_code == 200
    text = requests.get(f"{server.config.metrics}/metrics", timeout=60).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["stage_seconds"].type == families["batch_members"].type == "histogram"
    assert families["decode_violations"].type == "counter"
    values = {
        (sample.name, sample.labels["Stage"]): sample.value
        for sample in families["stage_seconds"].samples
        if sample.labels["ModelName"] == "resnet101"
    }
    for stage in STAGES:
        count = values["stage_seconds_count", stage]
        assert count >= 1
        assert 0 < values["stage_seconds_sum", stage] / count < 10


def test_a_profile_accounts_for_all_of_a_requests_time(
    server: Running, jpeg: bytes, tmp_path: Path
) -> None:
    picture = tmp_path / "photo.jpg"
    picture.write_bytes(jpeg)
    head, stages = profile(server.config, "resnet101", picture, clients=2, seconds=2)
    assert list(stages) == ["http", "queue", "transfer", *STAGES]
    assert max(stages, key=lambda stage: stages[stage]) in ("network", "queue")
    assert re.search(r"p50 \d+ ms, [12]\.\d requests a batch", head)
