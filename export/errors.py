"""Why an export stops; ``main`` prints the message and ends with exit status 1."""

from __future__ import annotations


class ExportError(Exception):
    """The message names what is wrong and what to do about it."""


class WeightsUnavailable(ExportError):
    """Published weights are neither in the cache nor to be had from the network."""
