"""Why serving stops or does not start; the command prints the message and ends with status 1."""

from __future__ import annotations


class ServingError(Exception):
    """The message says what is wrong and what to do about it."""
