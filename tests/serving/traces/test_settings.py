"""OpenTelemetry's environment variables."""

from __future__ import annotations

import pytest

from serving.errors import ServingError
from serving.traces.settings import ENDPOINT, TraceSettings, read

ON = {ENDPOINT: "http://collector:4317"}


@pytest.mark.parametrize(
    "shell",
    [
        {},
        {ENDPOINT: ""},
        {**ON, "OTEL_SDK_DISABLED": "true"},
        {**ON, "OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_SERVICE_NAME": "a", "OTEL_TRACES_SAMPLER": "nonsense"},
    ],
)
def test_traces_are_off(shell: dict[str, str]) -> None:
    assert read(shell) is None


@pytest.mark.parametrize(
    "endpoint", ["http://collector:4317", "https://collector", "http://[::1]:5000/"]
)
def test_traces_are_on(endpoint: str) -> None:
    assert read({ENDPOINT: endpoint}) == TraceSettings(endpoint, 1.0)


def test_a_share_of_requests() -> None:
    sampler = {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}
    assert read({**ON, **sampler}) == TraceSettings(ON[ENDPOINT], 0.25)


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({ENDPOINT: "collector:4317"}, "write http://collector:4317"),
        ({ENDPOINT: "http://collector:4318/v1/traces"}, "write http://collector:4317"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "the collector's gRPC port"),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, "parentbased_traceidratio"),
        (
            {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "10"},
            "from 0 to 1",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_remedy(
    changes: dict[str, str], remedy: str
) -> None:
    with pytest.raises(ServingError, match=remedy) as caught:
        read({**ON, **changes})
    assert f"without {ENDPOINT} no traces" in str(caught.value)
