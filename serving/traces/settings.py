"""Whether traces are sent, and of which requests: OpenTelemetry's environment variables.

Headers, certificates and times of the exporter are read from their variables by the SDK itself:
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from serving.errors import ServingError

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_OFF = f"; without {ENDPOINT} no traces are sent"


@dataclass(frozen=True)
class TraceSettings:
    """``endpoint`` is the collector's URL.

    Of the requests whose client has not decided it, the share ``ratio`` (0 to 1) is traced.
    """

    endpoint: str
    ratio: float


def read(shell: Mapping[str, str]) -> TraceSettings | None:
    """The settings in ``shell``, or None if traces are off.

    Raises ServingError if a variable asks for what this server cannot do.
    """
    endpoint = shell.get(ENDPOINT, "")
    disabled = shell.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if not endpoint or disabled or shell.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    try:
        url = urlsplit(endpoint)
    except ValueError:
        url = urlsplit("")
    if url.scheme not in ("http", "https") or not url.hostname or url.path.strip("/"):
        raise ServingError(
            f"{ENDPOINT}={endpoint} is no address of a collector's OTLP over gRPC: write "
            f"http://collector:4317 or https://{_OFF}"
        )
    protocol = shell.get("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    if protocol != "grpc":
        raise ServingError(
            f"traces are sent over gRPC, not OTEL_EXPORTER_OTLP_PROTOCOL={protocol}: set it to "
            f"grpc, and {ENDPOINT} to the collector's gRPC port, usually 4317{_OFF}"
        )
    return TraceSettings(endpoint, _ratio(shell))


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
