"""OpenTelemetry's standard environment variables: where traces are sent, and which requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from serving.errors import ServingError

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PORT = 4317
_OFF = f"; without {ENDPOINT} no traces are sent"


@dataclass(frozen=True)
class TraceSettings:
    """``endpoint`` is the collector's URL, ``target`` its ``host:port``.

    ``certificate`` is the authority of an https collector (None: the well-known ones). ``headers``
    go with each export, ``resource`` describes this server in each span. Of the requests whose
    client has not decided it, ``ratio`` (0 to 1) are traced.
    """

    endpoint: str
    target: str
    is_secure: bool
    certificate: Path | None
    headers: tuple[tuple[str, str], ...]
    resource: Mapping[str, str]
    ratio: float


def read(shell: Mapping[str, str]) -> TraceSettings | None:
    """The settings in ``shell``, or None if traces are off.

    Raises ServingError if a variable asks for what this server cannot do.
    """
    endpoint = shell.get(ENDPOINT, "")
    disabled = shell.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if not endpoint or disabled or shell.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    url = urlsplit(endpoint)
    try:
        port = url.port or _PORT
    except ValueError:
        port = 0
    if url.scheme not in ("http", "https") or not url.hostname or not port or url.path.strip("/"):
        raise ServingError(
            f"{ENDPOINT}={endpoint} is no address of a collector's OTLP over gRPC: write "
            f"http://collector:{_PORT} or https://{_OFF}"
        )
    protocol = shell.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    if protocol != "grpc":
        raise ServingError(
            f"traces are sent over gRPC, not OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: set it to "
            f"grpc, and {ENDPOINT} to the collector's gRPC port, usually {_PORT}{_OFF}"
        )
    certificate = shell.get("OTEL_EXPORTER_OTLP_CERTIFICATE")
    if certificate and not Path(certificate).is_file():
        raise ServingError(f"OTEL_EXPORTER_OTLP_CERTIFICATE={certificate} is no file{_OFF}")
    host = f"[{url.hostname}]" if ":" in url.hostname else url.hostname
    return TraceSettings(
        endpoint,
        f"{host}:{port}",
        url.scheme == "https",
        Path(certificate) if certificate else None,
        tuple(
            (name.lower(), value)
            for name, value in _pairs(shell, "OTEL_EXPORTER_OTLP_HEADERS").items()
        ),
        {
            "service.name": "vision",
            **_pairs(shell, "OTEL_RESOURCE_ATTRIBUTES"),
            **({"service.name": name} if (name := shell.get("OTEL_SERVICE_NAME")) else {}),
        },
        _ratio(shell),
    )


def _pairs(shell: Mapping[str, str], variable: str) -> dict[str, str]:
    """The value of ``variable``: ``name=value,name=value``, percent-encoded."""
    pairs = {}
    for pair in filter(None, map(str.strip, shell.get(variable, "").split(","))):
        name, equals, value = pair.partition("=")
        if not name.strip() or not equals:  # the value may be a secret: it is not repeated
            raise ServingError(f"{variable} must be name=value, separated by commas{_OFF}")
        pairs[name.strip()] = unquote(value.strip())
    return pairs


def _ratio(shell: Mapping[str, str]) -> float:
    sampler = shell.get("OTEL_TRACES_SAMPLER", "parentbased_always_on")
    text = shell.get("OTEL_TRACES_SAMPLER_ARG", "1")
    if sampler == "parentbased_always_on":
        return 1.0
    try:
        ratio = float(text)
    except ValueError:
        ratio = -1.0
    if sampler != "parentbased_traceidratio" or not 0 <= ratio <= 1:
        raise ServingError(
            "OTEL_TRACES_SAMPLER must be parentbased_always_on or parentbased_traceidratio, the "
            f"latter with OTEL_TRACES_SAMPLER_ARG from 0 to 1: not {sampler} with {text}{_OFF}"
        )
    return ratio
