"""Spans reach a collector; one that does not answer delays nobody, and is reported once."""

from __future__ import annotations

import time
from collections.abc import Iterator

import grpc
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from serving.traces import collector
from serving.traces.collector import Collector
from serving.traces.settings import ENDPOINT, read
from tests.collecting import Collecting, collecting
from tests.running import free_port, wait_until


@pytest.fixture
def collected() -> Iterator[tuple[Collecting, str]]:
    with collecting() as (kept, url):
        yield kept, url


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "INTERVAL_S", 0.05)
    monkeypatch.setattr(collector, "PAUSE_S", 0.05)


def sender(url: str, said: list[str], **shell: str) -> Collector:
    settings = read({ENDPOINT: url, **shell})
    assert settings is not None
    return Collector(settings, said.append)


def spans(count: int, first: int = 0) -> list[Span]:
    return [Span(name=str(first + i)) for i in range(count)]


def test_what_arrives(collected: tuple[Collecting, str]) -> None:
    kept, url = collected
    said: list[str] = []
    sending = sender(
        url, said, OTEL_EXPORTER_OTLP_HEADERS="api-key=s3cret", OTEL_SERVICE_NAME="pictures"
    )
    sending.add("queue", spans(1))
    sending.add("worker", spans(2, 1))
    sending.close()  # without a wait: nothing is lost at the end
    assert [(span.scope, span.name) for span in kept.spans] == [
        ("queue", "0"),
        ("worker", "1"),
        ("worker", "2"),
    ]
    assert kept.resources == [{"service.name": "pictures"}]
    assert kept.metadata[0]["api-key"] == "s3cret"
    assert said == []


def test_many_spans_are_sent_in_parts(collected: tuple[Collecting, str]) -> None:
    kept, url = collected
    sending = sender(url, [])
    count = 3 * collector.AT_ONCE + 1
    sending.add("worker", spans(count))
    sending.close()
    assert [span.name for span in kept.spans] == list(map(str, range(count)))
    assert len(kept.metadata) == 4


def test_a_collector_that_starts_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collector, "MOST_WAITING", 4)
    port = free_port()
    said: list[str] = []
    sending = sender(f"http://127.0.0.1:{port}", said)
    sending.add("worker", spans(1))
    wait_until(lambda: said != [])
    sending.add("worker", spans(5, 1))
    with collecting(port) as (kept, url):
        wait_until(lambda: len(said) > 1)
        sending.close()
    assert f"{url} takes no traces (UNAVAILABLE" in said[0]
    assert said[1:] == [f"{url} takes traces again; lost spans: 2"]
    assert [span.name for span in kept.spans] == ["2", "3", "4", "5"]


def test_what_the_collector_refuses_is_not_sent_again(collected: tuple[Collecting, str]) -> None:
    kept, url = collected
    said: list[str] = []
    kept.status = grpc.StatusCode.UNAUTHENTICATED
    sending = sender(url, said)
    sending.add("worker", spans(2))
    wait_until(lambda: said != [])
    kept.status = None
    sending.add("worker", spans(1, 2))
    sending.close()
    assert [span.name for span in kept.spans] == ["2"]
    assert "UNAUTHENTICATED: not now" in said[0]
    assert said[1:] == [f"{url} takes traces again; lost spans: 2"]


def test_a_collector_that_comes_and_goes_is_no_flood(collected: tuple[Collecting, str]) -> None:
    kept, url = collected
    said: list[str] = []
    sending = sender(url, said)
    for sent in range(1, 4):
        kept.status = grpc.StatusCode.UNAVAILABLE
        tried = len(kept.metadata)
        sending.add("worker", spans(1))
        wait_until(lambda tried=tried: len(kept.metadata) > tried)  # type: ignore[misc]
        kept.status = None
        wait_until(lambda sent=sent: len(kept.spans) == sent)  # type: ignore[misc]
    sending.close()
    assert len([line for line in said if "takes no traces" in line]) == 1
    assert len(said) <= 2


def test_the_end_does_not_wait_for_a_collector_that_is_away() -> None:
    said: list[str] = []
    sending = sender(f"http://127.0.0.1:{free_port()}", said)
    sending.add("worker", spans(2 * collector.AT_ONCE))
    began = time.monotonic()
    sending.close()
    assert time.monotonic() - began < collector.TIMEOUT_S / 2
