"""Types of the fixtures that several test folders use."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

# A row as TorchServe hands it to a handler: its fields and its headers.
Sent = tuple[Mapping[str, Any], Mapping[str, str]]

# Status, headers and body of one answer.
Reply = tuple[int, dict[str, str], bytes]

# Passes rows to a handler as one batch: predict(handler, *sent).
Predict = Callable[..., list[Reply]]
