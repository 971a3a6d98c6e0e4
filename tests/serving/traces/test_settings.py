"""OpenTelemetry's environment variables."""

from __future__ import annotations

import pytest

from serving.errors import ServingError
from serving.traces.settings import ENDPOINT, read

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
    ("endpoint", "target", "is_secure"),
    [
        ("http://collector:4317", "collector:4317", False),
        ("https://collector", "collector:4317", True),
        ("http://[::1]:5000/", "[::1]:5000", False),
    ],
)
def test_where_traces_go(endpoint: str, target: str, is_secure: bool) -> None:
    settings = read({ENDPOINT: endpoint})
    assert settings is not None
    assert (settings.target, settings.is_secure) == (target, is_secure)
    assert (settings.ratio, settings.resource) == (1, {"service.name": "vision"})


def test_what_goes_with_them() -> None:
    shell = {
        **ON,
        "OTEL_EXPORTER_OTLP_HEADERS": "Api-Key=a%3Db, x=1",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=prod,service.name=other",
        "OTEL_SERVICE_NAME": "pictures",
        "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
        "OTEL_TRACES_SAMPLER_ARG": "0.25",
    }
    settings = read(shell)
    assert settings is not None
    assert settings.headers == (("api-key", "a=b"), ("x", "1"))
    assert settings.ratio == 0.25
    assert settings.resource == {
        "service.name": "pictures",
        "deployment.environment.name": "prod",
    }


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({ENDPOINT: "collector:4317"}, "write http://collector:4317"),
        ({ENDPOINT: "http://collector:port"}, "write http://collector:4317"),
        ({ENDPOINT: "http://collector:4318/v1/traces"}, "write http://collector:4317"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, "the collector's gRPC port"),
        ({"OTEL_EXPORTER_OTLP_CERTIFICATE": "/none.pem"}, "is no file"),
        ({"OTEL_TRACES_SAMPLER": "always_off"}, "parentbased_traceidratio"),
        (
            {
                "OTEL_TRACES_SAMPLER": "parentbased_traceidratio",
                "OTEL_TRACES_SAMPLER_ARG": "10",
            },
            "from 0 to 1",
        ),
        ({"OTEL_EXPORTER_OTLP_HEADERS": "s3cret"}, "name=value"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_remedy(
    changes: dict[str, str], remedy: str
) -> None:
    with pytest.raises(ServingError, match=remedy) as caught:
        read({**ON, **changes})
    assert f"without {ENDPOINT} no traces" in str(caught.value)
    assert "s3cret" not in str(caught.value)
