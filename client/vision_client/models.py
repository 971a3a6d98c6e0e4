"""The networks that are asked unless the caller names another."""

from __future__ import annotations

from collections.abc import Mapping

# The network per task. TorchServe's inference API cannot list the models that it serves, so the
# names have to be known here; a gateway that lists them would replace this table.
DEFAULTS: Mapping[str, str] = {"classify": "resnet101", "translate": "cyclegan"}
