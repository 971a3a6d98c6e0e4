"""What a worker reports of traced requests: which, and when they were computed."""

from __future__ import annotations

import time

import pytest

from handlers.errors import BadImage, RequestError
from handlers.request import Answer, Message
from handlers.stages import Stages
from handlers.traces import is_sampled, traced

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00"
ANSWER = Answer(b"{}", "application/json")
ERROR = BadImage("no")


def message(traceparent: str, id: str = "a") -> Message:
    return Message({"traceparent": traceparent, "x-request-id": id})


def test_the_sampled_requests_of_a_batch() -> None:
    before, stages = time.time_ns(), Stages()
    for _ in range(2):
        with stages("decode"):
            time.sleep(0.001)
        time.sleep(0.01)
    batch: list[Message | RequestError] = [message(SAMPLED), message(UNSAMPLED), Message(), ERROR]
    answers: list[Answer | RequestError] = [ANSWER, ANSWER, ANSWER, ERROR, ERROR]
    found = traced([*batch, message(SAMPLED, "b")], answers, stages)
    assert found is not None
    assert found["requests"] == [[SAMPLED, "a", 200, ""], [SAMPLED, "b", 400, "BadImage"]]
    [(began, ended)] = found["stages"].values()  # from the first start to the last end
    assert before - 10**6 < found["period"][0] <= began < ended <= found["period"][1]
    assert 0.002 <= stages.seconds["decode"] < (ended - began) / 1e9 - 0.009


@pytest.mark.parametrize("other", [Message(), message(UNSAMPLED), message("nonsense"), ERROR])
def test_other_batches_report_nothing(other: Message | RequestError) -> None:
    assert traced([other], [ANSWER], Stages()) is None


def test_traceparents() -> None:
    assert is_sampled(SAMPLED)
    assert is_sampled(SAMPLED[:-2] + "03")
    for other in (UNSAMPLED, "", SAMPLED.upper(), SAMPLED + "-x", "01" + SAMPLED[2:]):
        assert not is_sampled(other), other
