"""The handlers' own metrics, in seconds, as Prometheus reads them; and a profile made of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import requests
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.profile import profile, table
from handlers.stages import STAGES


def test_every_stage_is_a_histogram_in_seconds(server: Any, jpeg: bytes) -> None:
    begun = requests.post(server.url("resnet101"), data=jpeg, timeout=60)
    assert begun.status_code == 200
    text = requests.get(f"{server.config.metrics}/metrics", timeout=60).text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert families["stage_seconds"].type == families["batch_members"].type == "histogram"
    samples = [
        sample
        for sample in families["stage_seconds"].samples
        if sample.labels["ModelName"] == "resnet101"
    ]
    for stage in STAGES:
        count, total = (
            next(s.value for s in samples if s.name == name and s.labels["Stage"] == stage)
            for name in ("stage_seconds_count", "stage_seconds_sum")
        )
        assert count >= 1
        assert 0 < total / count < 10


def test_a_profile_accounts_for_all_of_a_requests_time(
    server: Any, jpeg: bytes, tmp_path: Path
) -> None:
    picture = tmp_path / "photo.jpg"
    picture.write_bytes(jpeg)
    found = profile(server.config, "resnet101", picture, clients=2, seconds=2)
    assert list(found.stages) == ["http", "queue", "transfer", *STAGES]
    assert max(found.stages, key=lambda stage: found.stages[stage]) in ("network", "queue")
    seen = sum(found.outcome.latencies) / len(found.outcome.latencies)
    assert 0.5 * seen < sum(found.stages.values()) < 1.5 * seen
    assert 1 <= found.members <= 2
    assert "network" in table("resnet101", found, 2)
