"""What an HTTP request and its answer say beside the body: ids, time, size, the connection."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import requests

from tests.routes import TIMEOUT_S, Server, post
from tests.running import wait_until

MAX_REQUEST = 24 * 2**20


def test_a_sane_id_is_kept_and_logged(served: Server, jpeg: bytes) -> None:
    chosen = f"order-7.{uuid.uuid4().hex}"
    answer = post(served, "resnet101", data=jpeg, headers={"x-request-id": chosen})
    is_kept = answer.headers["x-request-id"] == chosen
    assert is_kept is served.expected("the answer has the id of the request", True)
    wait_until(lambda: f"{chosen} ok" in served.log())


def test_a_request_without_an_id_gets_one(served: Server) -> None:
    made = post(served, "resnet101", data=b"x").headers["x-request-id"]
    assert str(uuid.UUID(made)) == made
    wait_until(lambda: f"{made} BadImage" in served.log())


@pytest.mark.parametrize("chosen", ["a b", "x" * 129, "a\tb", "-", '"}', "é"])
def test_another_id_is_replaced(served: Server, chosen: str) -> None:
    headers = {"x-request-id": chosen.encode()}
    made = post(served, "resnet101", data=b"x", headers=headers).headers["x-request-id"]
    is_kept = made.encode("latin-1") == chosen.encode()
    assert is_kept is served.expected("an id that is unsafe to log is kept", False)
    assert f"{chosen} BadImage" not in served.log()


@pytest.mark.parametrize("wrong", ["0", "-1", "1.5", "soon", "999999999"])
def test_a_time_is_a_number_of_milliseconds(served: Server, wrong: str) -> None:
    answer = post(served, "resnet101", data=b"x", headers={"x-timeout-ms": wrong})
    found = (answer.status_code, answer.json()["type"])
    assert found == served.expected("a wrong x-timeout-ms", (422, "InvalidOption"))


def test_a_request_is_answered_within_its_time(served: Server, heavy: bytes) -> None:
    """The picture alone takes longer to decode."""
    answer = post(served, "resnet101", data=heavy, headers={"x-timeout-ms": "100"})
    found = (answer.status_code, answer.json().get("type"))
    assert found == served.expected("x-timeout-ms passes", (504, "DeadlineExceeded"))


@pytest.mark.parametrize("chunked", [False, True])
def test_a_request_that_is_too_large_is_refused_in_json(served: Server, chunked: bool) -> None:
    data = b"x" * (MAX_REQUEST + 1)
    answer = post(served, "resnet101", data=iter([data]) if chunked else data)
    assert answer.status_code == 413
    error: dict[str, Any] = answer.json() if answer.content else {}
    assert error.get("type") == served.expected("type of 24 MiB and more", "TooLarge")
    assert str(MAX_REQUEST) in error.get("message", str(MAX_REQUEST))


def test_what_curl_calls_a_web_form_is_a_picture(served: Server, jpeg: bytes) -> None:
    """curl does so with --data-binary."""
    web_form = {"content-type": "application/x-www-form-urlencoded"}
    answer = post(served, "resnet101", data=jpeg, headers=web_form)
    found = (answer.status_code, answer.json().get("type", ""))
    assert found == served.expected("a picture announced as a web form", (200, ""))


def test_an_expectation_is_met(served: Server, jpeg: bytes) -> None:
    """curl sends it with large uploads."""
    answer = post(served, "resnet101", data=jpeg, headers={"expect": "100-continue"})
    assert answer.status_code == 200


def test_an_error_does_not_cost_the_connection(served: Server, jpeg: bytes) -> None:
    closed = []
    with requests.Session() as session:
        for data in (jpeg, b"x", jpeg):
            answer = session.post(served.url("resnet101"), data=data, timeout=TIMEOUT_S)
            closed.append("close" in answer.headers.get("connection", ""))
    assert closed == served.expected("connections closed", [False, False, False])
