"""The error that every command of serving prints before it ends with status 1."""

from __future__ import annotations


class ServingError(Exception):
    """The message says what is wrong and how to fix it."""
