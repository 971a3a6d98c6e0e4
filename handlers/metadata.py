"""The frozen record that a network carries from its export to whoever serves it. No torch import.

The export builds it once. The ``.pt`` holds it as ``model.json``, the ``.json`` beside the ``.pt``
adds how the export went, and a worker's description adds how the network is served.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Spec:
    """Everything that must agree between a checkpoint, its trace and its server.

    ``task`` names the module of ``handlers.tasks`` that answers with the network's output.
    ``variant`` names the preprocessing. ``resize`` and ``crop`` are in pixels: the shorter side
    becomes ``resize`` by ``interpolation`` with antialiasing, then the centre ``crop`` x ``crop``
    is kept (``None`` keeps all, with both sides rounded to ``multiple``). The input tensor is
    ``(N, 3, H, W) float32``: ``(rgb / 255 - mean) / std``. ``output`` says what the network gives:
    ``classes`` for ``(N, len(labels))`` logits, ``picture`` for ``(N, 3, scale * H, scale * W)``
    with values in ``output_range``.
    """

    name: str
    task: str
    variant: str
    output: Literal["classes", "picture"]
    resize: int
    crop: int | None
    multiple: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    labels: tuple[str, ...] = ()
    scale: int = 1
    output_range: tuple[float, float] = (-1.0, 1.0)

    @classmethod
    def from_map(cls, fields: Mapping[str, Any]) -> Spec:
        """The inverse of ``dataclasses.asdict``; TypeError for a missing or unknown field."""
        values: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()
        }
        return cls(**values)


@dataclass(frozen=True)
class Weights:
    """Where the weights came from.

    ``name`` goes into the response header x-model-weights. ``sha256`` is of the checkpoint file
    (None: untrained), ``licence`` is None where it is not known.
    """

    name: str
    source: str
    trained: bool
    sha256: str | None
    licence: str | None


@dataclass(frozen=True)
class Golden:
    """How to read the golden example that travels in the ``.pt``."""

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    dtype: str = "float32, little-endian, C order"


@dataclass(frozen=True)
class Metadata:
    """``precisions`` is the gate's result: ``{"bfloat16": {"passed", "summary", ...}, ...}``.

    ``torch`` is the version of PyTorch that traced the network.
    """

    name: str
    spec: Spec
    weights: Weights
    golden: Golden
    precisions: Mapping[str, Mapping[str, Any]]
    torch: str

    def to_map(self) -> dict[str, Any]:
        """The record as JSON objects hold it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Metadata:
        """The inverse of ``json.dumps(record.to_map())``.

        ValueError where ``text`` is not JSON, KeyError or TypeError for missing or unknown fields.
        """
        fields = json.loads(text)
        fields["spec"] = Spec.from_map(fields["spec"])
        fields["weights"] = Weights(**fields["weights"])
        golden = fields["golden"]
        shapes = {name: tuple(golden[name]) for name in ("input_shape", "output_shape")}
        fields["golden"] = Golden(**{**golden, **shapes})
        return cls(**fields)
