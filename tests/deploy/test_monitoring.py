"""deploy/monitoring with Debian's Prometheus: alerts, dashboard, a scrape of the real server."""

from __future__ import annotations

import contextlib
import json
import math
import re
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import requests
import yaml

from tests.debian import require
from tests.exposition import families
from tests.routes import post, predict
from tests.running import Running, free_port, wait_until

require("prometheus")

FOLDER = Path(__file__).parents[2] / "deploy" / "monitoring"
PAGE = (FOLDER.parents[1] / "docs" / "metrics.md").read_text()
RUNBOOK = (FOLDER.parents[1] / "docs" / "operations.md").read_text()
ALERTS = [
    rule
    for group in yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((FOLDER / "grafana.json").read_text())
# Grafana's variables, for a Prometheus that scrapes every second.
VARIABLES = {"$__rate_interval": "10s", "$model": ".*"}
# Series without samples on the suite's server, and why.
ELSEWHERE = {
    "vision_device_memory_used_bytes": "it has no GPU",
    "vision_device_memory_bytes": "it has no GPU",
    "vision_certificate_expiry_timestamp_seconds": "it has no TLS",
    "vision_key_expiry_timestamp_seconds": "it has no API keys",
}


def queries() -> list[tuple[str, str]]:
    """Each query of the dashboard with the title of its panel."""
    found = []
    for panel in DASHBOARD["panels"]:
        for target in panel.get("targets", []):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            assert "$" not in expression
            found.append((panel["title"], expression))
    return found


def series_in(expression: str) -> set[str]:
    """The names of the series in a query."""
    return set(re.findall(r"\b(?:vision|envoy|ts)_\w+(?=[{\[\s)]|$)", expression))


def promtool(*arguments: str) -> None:
    run = subprocess.run(
        ["promtool", *arguments],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_the_configuration_is_valid() -> None:
    promtool("check", "config", "prometheus.yml")


def test_the_alerts_fire_when_they_should() -> None:
    promtool("test", "rules", "alerts_test.yml")


def test_every_alert_has_a_test_that_fires_one_that_does_not_and_a_place_in_the_docs() -> None:
    tests = [
        case
        for test in yaml.safe_load((FOLDER / "alerts_test.yml").read_text())["tests"]
        for case in test["alert_rule_test"]
    ]
    for rule in ALERTS:
        fires = {
            bool(case.get("exp_alerts")) for case in tests if case["alertname"] == rule["alert"]
        }
        assert fires == {True, False}, rule["alert"]
        assert f"`{rule['alert']}`" in PAGE
        assert f"\n### {rule['alert']}\n" in RUNBOOK
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"


class Prometheus:
    """A running Prometheus."""

    def __init__(self, url: str) -> None:
        self._url = url

    def query(self, expression: str) -> list[float]:
        """The values of the result, without those that are no number. AssertionError if invalid."""
        reply = requests.get(
            f"{self._url}/api/v1/query", params={"query": expression}, timeout=30
        ).json()
        assert reply["status"] == "success", (expression, reply)
        values = [float(sample["value"][1]) for sample in reply["data"]["result"]]
        return [value for value in values if not math.isnan(value)]

    def is_ready(self) -> bool:
        with contextlib.suppress(requests.ConnectionError):
            return requests.get(f"{self._url}/-/ready", timeout=5).status_code == 200
        return False

    def own(self, name: str) -> float:
        """The value of one of its own counters."""
        text = requests.get(f"{self._url}/metrics", timeout=10).text
        found = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
        assert found, name
        return float(found[1])


@pytest.fixture(scope="module")
def prometheus(server: Running, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus with our configuration, which scrapes the suite's server every second."""
    folder = tmp_path_factory.mktemp("prometheus")
    configuration = yaml.safe_load((FOLDER / "prometheus.yml").read_text())
    configuration["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration["rule_files"] = [str(FOLDER / "alerts.yml")]
    target = server.config.metrics.removeprefix("http://")
    configuration["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(configuration))
    port = free_port()
    command = ["prometheus", f"--config.file={path}", f"--storage.tsdb.path={folder}/data"]
    command += [f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with (folder / "log").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        running = Prometheus(f"http://127.0.0.1:{port}")
        wait_until(lambda: running.is_ready() or process.poll() is not None, 60)
        assert process.poll() is None, (folder / "log").read_text()
        wait_until(lambda: running.query('up{job="vision"}') == [1.0], 30)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(30)
        finally:
            process.kill()


def load(server: Running, jpeg: bytes, until: float) -> None:
    """Requests over both protocols, some of which fail."""
    while time.monotonic() < until:
        assert post(server, "resnet101", data=jpeg).status_code == 200
        assert post(server, "resnet101", data=b"no picture").status_code == 400
        assert predict(server, "resnet101", data=jpeg)
        with pytest.raises(grpc.RpcError):
            predict(server, "stranger", data=jpeg)


@pytest.mark.slow
def test_every_query_has_data_under_load(
    server: Running, prometheus: Prometheus, jpeg: bytes
) -> None:
    until = time.monotonic() + 8
    with ThreadPoolExecutor(2) as threads:
        loads = [threads.submit(load, server, jpeg, until) for _ in range(2)]
        time.sleep(4)  # rates need several scrapes
        empty: dict[str, Any] = {}
        for title, query in queries():
            if not prometheus.query(query):
                empty[title] = query
        firing = {rule["alert"] for rule in ALERTS if prometheus.query(rule["expr"])}
        for each in loads:
            each.result(60)
    assert all(series_in(query) <= ELSEWHERE.keys() for query in empty.values()), empty
    assert firing == set()
    # Nothing of the text was refused.
    for fault in ("duplicate_timestamp", "out_of_order", "out_of_bounds"):
        assert prometheus.own(f"prometheus_target_scrapes_sample_{fault}_total") == 0
    assert prometheus.query("scrape_samples_scraped")[0] > 1000


@pytest.mark.slow
def test_dashboard_and_alerts_use_only_series_that_exist(server: Running) -> None:
    """Also those of panels that have no data here."""
    names = set()
    for family in families(server.config.metrics).values():
        names |= {family.name, f"{family.name}_total"}
        if family.type == "histogram":
            names |= {f"{family.name}{suffix}" for suffix in ("_bucket", "_sum", "_count")}
    used = [query for _, query in queries()] + [rule["expr"] for rule in ALERTS]
    for query in used:
        assert series_in(query) or query.startswith("up{"), query
        assert series_in(query) <= names, query
