"""The metrics that the supervisor keeps itself; all begin with ``vision_`` (docs/metrics.md)."""
