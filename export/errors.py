"""Why an export stops; ``main`` prints the message and ends with exit status 1."""

from __future__ import annotations


class ExportError(Exception):
    """The message names what is wrong and what to do about it."""


def reason(error: ExportError | OSError) -> str:
    """The message for a person."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    return str(error)


class WeightsUnavailable(ExportError):
    """Published weights are neither in the cache nor to be had from the network."""
