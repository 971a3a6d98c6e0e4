"""The optional dependencies, which are imported only when they are needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class MissingExtra(ImportError):
    """An optional dependency is not installed; the message has the command that installs it."""


@contextmanager
def extra(name: str, feature: str) -> Iterator[None]:
    """Wrap the imports of ``feature``, whose packages ``vision-client[name]`` installs."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("vision_client"):  # a broken build, not a missing extra
            raise
        raise MissingExtra(
            f"{feature} needs packages that are not installed: pip install 'vision-client[{name}]'"
        ) from error
