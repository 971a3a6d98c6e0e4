"""OpenTelemetry traces: spans of the gateway, the queue and the workers, sent to a collector.

Nothing here but ``settings`` is imported unless OTEL_EXPORTER_OTLP_ENDPOINT is set.
"""
