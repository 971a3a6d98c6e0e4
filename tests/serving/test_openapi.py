"""docs/openapi.yaml and docs/contract.md against the code and the running server.

Each number of the description is compared with the code, and schemathesis generates requests from
it. tests/contract/test_openapi.py sends its examples.
"""

from __future__ import annotations

import base64
import dataclasses
import itertools
import re
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi import checks

from export.networks import registered
from handlers import tasks
from handlers.pictures.limits import LIMITS
from handlers.request import Switch
from tests.description import (
    DESCRIPTION,
    ERRORS,
    FEATURES,
    OPERATIONS,
    PICTURES,
    PREDICTIONS,
    resolved,
)
from tests.running import Running

ROOT = Path(__file__).parents[2]
CONTRACT = (ROOT / "docs/contract.md").read_text()
SCHEMAS = DESCRIPTION["components"]["schemas"]
# Those of the gateway; some over gRPC alone.
GATEWAY = {
    path.name: {
        (int(code), name)
        for code, name in re.findall(r'\b([45]\d\d),\s*(?:"type": )?"([A-Z]\w+)"', path.read_text())
    }
    for path in (*(ROOT / "serving/gateway").iterdir(), ROOT / "serving/refusals.py")
    if path.is_file()
}
ALL_ERRORS = ERRORS.union(*GATEWAY.values())
# Answers to a route or a method that is not described, and those over gRPC.
UNDESCRIBED = {(404, "NotFound"), (405, "MethodNotAllowed"), *(GATEWAY["grpc.lua"] - ERRORS)}
# By network, as with the published weights.
OFFERS = {
    network.name: tasks.load(dataclasses.replace(network.spec(), labels=("",) * 1000)).offer
    for network in (*registered().values(), FEATURES)
}
OPTIONS = {"format", *itertools.chain.from_iterable(offer.integers for offer in OFFERS.values())}
TIMEOUT_S = 120
CHECKS: list[Any] = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def described() -> Any:
    """The description for schemathesis, with real pictures as generated bodies."""
    for media_type, data in PICTURES.items():
        schemathesis.openapi.media_type(media_type, st.just(data))
    anything = st.sampled_from(list(PICTURES.values()))
    schemathesis.openapi.media_type("application/octet-stream", anything)
    schemathesis.openapi.format("picture", anything.map(base64.b64encode).map(bytes.decode))
    document = resolved(DESCRIPTION)
    for path, verb in PREDICTIONS:
        json = document["paths"][path][verb]["requestBody"]["content"]["application/json"]
        json["schema"]["properties"]["data"] = {"type": "string", "format": "picture"}
        del json["examples"]  # those of refusals would count as allowed
    return schemathesis.openapi.from_dict(document)


def as_clients_send(case: Any) -> Any:
    """The request with a small ``size``, to save time, all the time it needs, and integers as such.

    JSON Schema takes 64.0 for an integer, but in a header it is refused.
    """
    for fields in (case.headers, case.body):
        for name, value in list(fields.items()) if isinstance(fields, MutableMapping) else []:
            if isinstance(value, float) and value.is_integer():
                fields[name] = value = int(value)
            size = name in ("x-size", "size") and re.fullmatch("[0-9]{2,4}", str(value))
            if size and int(value) in range(64, 1025, 4):
                fields[name] = type(value)(64)
            if name == "x-timeout-ms" and re.fullmatch("[1-9][0-9]{0,6}", str(value)):
                fields[name] = type(value)(9_999_999)
    return case


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "verb", "mode"),
    [
        (*operation, mode)
        for operation in OPERATIONS
        for mode in GenerationMode
        if mode is GenerationMode.POSITIVE or operation in PREDICTIONS  # the others read nothing
    ],
)
def test_generated_requests_are_answered_as_described(
    server: Running, described: Any, path: str, verb: str, mode: GenerationMode
) -> None:
    """Valid requests are answered 200, others with a status that the description lists.

    Not all of the others are refused: unknown fields are ignored, and a text may be a number.
    """
    positive = [checks.positive_data_acceptance] if mode is GenerationMode.POSITIVE else []
    cases = described[path][verb.upper()].as_strategy(generation_mode=mode).map(as_clients_send)

    @given(case=cases)
    @settings(
        max_examples=12 if path.endswith("cyclegan") else 25,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def ask(case: Any) -> None:
        answer = case.call(base_url=server.config.inference, timeout=TIMEOUT_S)
        case.validate_response(answer, checks=[*CHECKS, *positive])
        # TorchServe answers 500 to forms that it cannot parse, before our handlers see them.
        assert answer.status_code < 500 or "ErrorDataDecoderException" in answer.text

    ask()


def test_errors_are_those_of_the_code() -> None:
    """Types that end in ``Exception`` are TorchServe's own."""
    described: set[tuple[int, str]] = set()
    for response in DESCRIPTION["components"]["responses"].values():
        schema = response.get("content", {}).get("application/json", {}).get("schema", {})
        for part in schema.get("allOf", []):
            properties = part.get("properties", {})
            kind = properties.get("type", {})
            for name in kind.get("enum", [kind["const"]] if "const" in kind else []):
                if not name.endswith("Exception"):
                    described.add((properties["code"]["const"], name))
    assert described == ALL_ERRORS - UNDESCRIBED | {(404, "ModelNotFound")}


def test_limits_are_those_of_the_code() -> None:
    assert DESCRIPTION["x-limits"] == dataclasses.asdict(LIMITS)


@pytest.mark.parametrize("model", OFFERS)
def test_options_are_those_of_the_task(model: str) -> None:
    path = resolved(DESCRIPTION["paths"][f"/predictions/{model}"])
    offer = OFFERS[model]
    schemas = {parameter["name"]: parameter["schema"] for parameter in path["parameters"]}
    assert schemas.pop("x-format")["enum"] == list(offer.formats)
    assert list(path["post"]["responses"]["200"]["content"]) == list(offer.formats.values())
    assert list(schemas) == [f"x-{name.replace('_', '-')}" for name in offer.integers]
    for schema, option in zip(schemas.values(), offer.integers.values(), strict=True):
        assert option.default == schema["default"]
        if isinstance(option, Switch):
            assert schema["type"] == "boolean"
            continue
        assert (option.low, option.high) == (schema["minimum"], schema["maximum"])
        assert option.multiple == schema.get("multipleOf", 1)


ROWS = [
    *(rf"`{limit.name}` +\| {limit.default:,}(?![\d,])" for limit in dataclasses.fields(LIMITS)),
    *(rf"{code} +\| `{name}`" for code, name in sorted(ALL_ERRORS)),
    *(rf"`{name}` +\| `x-{name.replace('_', '-')}`" for name in sorted(OPTIONS)),
]


@pytest.mark.parametrize("row", ROWS)
def test_the_contract_has_a_row_for_each_limit_error_and_option(row: str) -> None:
    assert re.search(rf"^\| {row}", CONTRACT, re.MULTILINE)
