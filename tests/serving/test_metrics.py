"""The metrics of a real server, as Prometheus reads them, and a profile made of them."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest
import requests

from handlers.stages import STAGES
from tests.exposition import counted, families
from tests.routes import post, predict, prediction
from tests.running import Running, wait_until
from tools.bench.profile import profile

PAGE = Path(__file__).parents[2] / "docs" / "metrics.md"


def test_the_page_has_every_series_with_its_type_and_labels(server: Running) -> None:
    listed = {}
    for row in PAGE.read_text().splitlines():
        names, kind, labels, *_ = [*row.strip("| ").split(" | "), "", ""]
        if names.startswith("`vision_") and kind in ("counter", "gauge", "histogram"):
            for name in re.findall(r"`(\w+)`", names):
                listed[name] = (kind, set(re.findall(r"`(\w+)`", labels)))
    served = {}
    for family in families(server.config.metrics).values():
        if family.name.startswith("vision_"):
            name = f"{family.name}_total" if family.type == "counter" else family.name
            served[name] = (family.type, {key for s in family.samples for key in s.labels} - {"le"})
    assert listed.keys() == served.keys()
    # A server without GPUs, TLS and keys that expire has no samples of these.
    for name in served:
        if not re.search("device_memory|certificate|key", name):
            assert listed[name] == served[name], name


def test_every_stage_is_a_histogram_in_seconds(server: Running, jpeg: bytes) -> None:
    assert post(server, "resnet101", data=jpeg).status_code == 200
    values = {
        (sample.name, sample.labels["stage"]): sample.value
        for sample in families(server.config.metrics)["vision_stage_seconds"].samples
        if sample.labels["model"] == "resnet101"
    }
    for stage in STAGES:
        count = values["vision_stage_seconds_count", stage]
        assert count >= 1
        assert 0 < values["vision_stage_seconds_sum", stage] / count < 10


def test_requests_are_counted_over_rest_and_grpc_alike(server: Running, jpeg: bytes) -> None:
    growth = counted(server.config.metrics)
    assert post(server, "resnet101", data=jpeg).status_code == 200
    assert post(server, "resnet101", data=b"no picture").status_code == 400
    assert post(server, "resnet101", data=jpeg, headers={"x-top-k": "0"}).status_code == 422
    assert post(server, "stranger", data=jpeg).status_code == 404
    assert requests.get(f"{server.rest}/stranger", timeout=10).status_code == 404
    assert requests.get(f"{server.rest}/readyz", timeout=10).status_code == 200
    assert predict(server, "resnet101", data=jpeg)
    for model, fields in (
        ("resnet101", {"data": b"no picture"}),
        ("resnet101", {"data": jpeg, "top_k": b"0"}),
        ("stranger", {"data": jpeg}),
    ):
        with pytest.raises(grpc.RpcError):
            predict(server, model, **fields)
    expected = {
        ("resnet101", protocol, code, error): 1.0
        for protocol in ("rest", "grpc")
        for code, error in (("200", ""), ("400", "BadImage"), ("422", "InvalidOption"))
    }
    expected |= {
        ("", "rest", "404", "ModelNotFound"): 1.0,
        ("", "rest", "404", "NotFound"): 1.0,
        ("", "grpc", "404", "ModelNotFound"): 1.0,
    }
    wait_until(lambda: growth() == expected, 10)


def test_an_error_in_a_mixed_grpc_batch_is_counted_as_one(server: Running, jpeg: bytes) -> None:
    """TorchServe gives it the status OK; the gateway puts the right one into the trailers."""
    growth = counted(server.config.metrics)
    calls = [
        server.grpc.Predictions.future(prediction("resnet101", data=data), timeout=60)
        for data in (jpeg, b"no picture", jpeg, b"no picture", jpeg)
    ]
    codes = [call.code() for call in calls]
    assert codes.count(grpc.StatusCode.OK) == 3
    expected = {
        ("resnet101", "grpc", "200", ""): 3.0,
        ("resnet101", "grpc", "400", "BadImage"): 2.0,
    }
    wait_until(lambda: growth() == expected, 10)


def test_a_client_that_leaves_is_no_error_of_the_server(server: Running, heavy: bytes) -> None:
    growth = counted(server.config.metrics)
    with pytest.raises(requests.Timeout):
        requests.post(server.url("resnet101"), data=heavy, timeout=0.3)
    call = server.grpc.Predictions.future(prediction("resnet101", data=heavy), timeout=60)
    wait_until(lambda: bool(call.running()), 10)
    wait_until(lambda: ("resnet101", "rest", "499", "ClientLeft") in growth(), 10)
    call.cancel()
    wait_until(lambda: ("resnet101", "grpc", "499", "ClientLeft") in growth(), 10)
    assert {code for _, _, code, _ in growth()} == {"499"}


def test_a_profile_accounts_for_all_of_a_requests_time(
    server: Running, jpeg: bytes, tmp_path: Path
) -> None:
    picture = tmp_path / "photo.jpg"
    picture.write_bytes(jpeg)
    head, stages = profile(server.config, "resnet101", picture, clients=2, seconds=2)
    assert list(stages) == ["http", "queue", "transfer", *STAGES]
    assert max(stages, key=lambda stage: stages[stage]) in ("network", "queue")
    assert re.search(r"p50 \d+ ms, [12]\.\d requests a batch", head)
