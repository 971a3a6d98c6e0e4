"""The examples of docs/openapi.yaml are answered as it says."""

from __future__ import annotations

import pytest
import requests

from tests.description import DESCRIPTION, ERRORS, PICTURES, PREDICTIONS, resolved
from tests.routes import TIMEOUT_S, Server


@pytest.mark.parametrize(("path", "verb"), PREDICTIONS)
def test_examples_are_answered_as_described(served: Server, path: str, verb: str) -> None:
    """A request's example gets the response example of the same name."""
    operation = resolved(DESCRIPTION["paths"][path][verb])
    url = served.rest + path
    promised = {
        name: (int(code), example)
        for code, response in operation["responses"].items()
        for content in response.get("content", {}).values()
        for name, example in content.get("examples", {}).items()
    }
    examples = operation["requestBody"]["content"]["application/json"]["examples"]
    for name, example in examples.items():
        body, headers = example["value"], example.get("x-headers", {})
        answer = requests.request(verb, url, json=body, headers=headers, timeout=TIMEOUT_S)
        code, expected = promised.pop(name)
        assert answer.status_code == code, f"{name}: {answer.text}"
        if code != requests.codes.ok:
            assert answer.json() == expected["value"]
        elif "value" in expected:  # the numbers are those of the published weights
            predictions, documented = (
                reply["predictions"] for reply in (answer.json(), expected["value"])
            )
            assert [list(item) for item in predictions] == [list(item) for item in documented]
        else:
            assert answer.headers["content-type"] == "image/webp"
    assert {code for code, _ in promised.values()} <= {code for code, _ in ERRORS}


@pytest.mark.parametrize("path", [path for path, verb in PREDICTIONS if verb == "post"])
def test_examples_of_parameters_are_accepted(served: Server, path: str) -> None:
    described = DESCRIPTION["paths"][path]
    parameters = resolved(described["parameters"] + described["post"]["parameters"])
    headers = {parameter["name"]: str(parameter["example"]) for parameter in parameters}
    url, picture = served.rest + path, PICTURES["image/png"]
    answer = requests.post(url, data=picture, headers=headers, timeout=TIMEOUT_S)
    assert answer.status_code == requests.codes.ok, answer.text
