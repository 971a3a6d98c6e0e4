"""A worker's reports for traces: which requests, when, and that they never delay one."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from handlers.errors import BadImage, RequestError
from handlers.request import Answer, Message
from handlers.stages import Stages
from handlers.traces import LARGEST, VARIABLE, Reports, is_sampled

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
ANSWER = Answer(b"{}", "application/json")


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as reading:
        reading.bind(str(tmp_path / "traces"))
        reading.setblocking(False)
        yield reading


@pytest.fixture
def reports(tmp_path: Path) -> Reports:
    return Reports("resnet101", "1.0", {VARIABLE: str(tmp_path / "traces")})


def traced(traceparent: str, id: str = "a") -> Message:
    return Message({"traceparent": traceparent, "x-request-id": id})


def stages() -> Stages:
    passed = Stages()
    for _ in range(2):
        with passed("decode"):
            time.sleep(0.001)
        time.sleep(0.01)
    return passed


def test_the_sampled_requests_of_a_batch(reader: socket.socket, reports: Reports) -> None:
    before = time.time_ns()
    no = BadImage("no")
    batch: list[Message | RequestError] = [
        traced(SAMPLED),
        traced(UNSAMPLED),
        Message(),
        no,
        traced(SAMPLED, "b"),
    ]
    answers: list[Answer | RequestError] = [ANSWER, ANSWER, ANSWER, no, no]
    reports.send(batch, answers, stages())
    report: dict[str, Any] = json.loads(reader.recv(LARGEST))
    [(began, ended, seconds)] = report["stages"].values()
    assert before - 10**6 < report["began"] <= began < ended <= report["ended"]
    # From the first start to the last end, and the time in the stage itself.
    assert 0.002 <= seconds < (ended - began) / 1e9 - 0.009
    assert report["requests"] == [[SAMPLED, "a", 200, ""], [SAMPLED, "b", 400, "BadImage"]]
    assert (report["members"], report["process"]) == (5, os.getpid())


@pytest.mark.parametrize("batch", [[Message()], [traced(UNSAMPLED)], [traced("nonsense")]])
def test_other_batches_are_not_reported(
    reader: socket.socket, reports: Reports, batch: list[Message]
) -> None:
    reports.send(batch, [ANSWER], stages())
    with pytest.raises(BlockingIOError):
        reader.recv(LARGEST)


@pytest.mark.timeout(20)
def test_nobody_reads_them(reader: socket.socket, reports: Reports) -> None:
    for _ in range(5000):
        reports.send([traced(SAMPLED)], [ANSWER], Stages())
    reader.close()
    reports.send([traced(SAMPLED)], [ANSWER], Stages())
    assert reader.fileno() == -1


def test_without_the_variable_nothing_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", lambda *_: pytest.fail("a socket"))
    Reports("resnet101", "1.0", {}).send([traced(SAMPLED)], [ANSWER], Stages())


def test_traceparents() -> None:
    assert is_sampled(SAMPLED)
    assert is_sampled(SAMPLED[:-2] + "03")
    for other in (UNSAMPLED, "", SAMPLED.upper(), SAMPLED + "-x", "01" + SAMPLED[2:]):
        assert not is_sampled(other), other
