"""A row of TorchServe's batch -> the picture and the options that a client sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from handlers.errors import RequestError
from handlers.pictures.limits import LIMITS, Limits
from handlers.request import Upload, read
from handlers.torchserve import header_values, message


def parse(row: Mapping[str, Any], headers: Mapping[str, object], limits: Limits = LIMITS) -> Upload:
    """Raises the RequestError that the request would be answered with."""
    received = message(row, header_values(headers))
    if isinstance(received, RequestError):
        raise received
    return read(received, limits)
