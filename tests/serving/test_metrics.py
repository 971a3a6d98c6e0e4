"""The handlers' metrics, in seconds, as Prometheus reads them, and a profile made of them."""

from __future__ import annotations

from pathlib import Path

import requests
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.profile import profile, table
from handlers.stages import STAGES
from tests.routes import post
from tests.running import Running


def test_every_stage_is_a_histogram_in_seconds(server: Running, jpeg: bytes) -> None:
    assert post(server, "resnet101", data=jpeg).status_code == 200
    text = requests.get(f"{server.config.metrics}/metrics", timeout=60).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["stage_seconds"].type == families["batch_members"].type == "histogram"
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
    measured = profile(server.config, "resnet101", picture, clients=2, seconds=2)
    assert list(measured.stages) == ["http", "queue", "transfer", *STAGES]
    assert max(measured.stages, key=lambda stage: measured.stages[stage]) in ("network", "queue")
    seen = sum(measured.outcome.latencies) / len(measured.outcome.latencies)
    assert 0.5 * seen < sum(measured.stages.values()) < 1.5 * seen
    assert 1 <= measured.members <= 2
    assert "network" in table("resnet101", measured, 2)
