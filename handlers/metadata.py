"""The metadata of an exported network, as frozen dataclasses. Does not import torch.

The export builds it once. The ``.pt`` contains it as ``model.json``; the ``.json`` beside the
``.pt`` adds the results of the export, and a worker's description adds how the network is served.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

Output: TypeAlias = Literal["classes", "picture", "features"]


@dataclass(frozen=True)
class Spec:
    """Everything that must agree between a checkpoint, its trace and its server.

    ``task`` is the module in ``handlers.tasks`` that turns the network's output into an answer.
    ``variant`` names the preprocessing: the shorter side is resized to ``resize`` pixels with
    ``interpolation`` and antialiasing, then the centre ``crop`` x ``crop`` pixels are kept. If
    ``crop`` is None, the whole picture is kept and the longer side is rounded to ``multiple``. The
    input tensor is ``(N, 3, H, W) float32``: ``(rgb / 255 - mean) / std``. If ``output`` is
    ``classes``, the network returns logits ``(N, len(labels))``; if it is ``picture``, it returns
    ``(N, 3, scale * H, scale * W)`` with values in ``output_range``; if it is ``features``, it
    returns ``(N, features)``.
    """

    name: str
    task: str
    variant: str
    output: Output
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
    """The origin of the weights.

    ``name`` is the value of the response header x-model-weights. ``sha256`` is the digest of the
    checkpoint file, None for random weights. ``licence`` is None if it is unknown.
    """

    name: str
    source: str
    trained: bool
    sha256: str | None
    licence: str | None


@dataclass(frozen=True)
class Golden:
    """The shapes and the data type of the golden example in the ``.pt``."""

    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    dtype: str = "float32, little-endian, C order"


@dataclass(frozen=True)
class Metadata:
    """The metadata record.

    ``precisions`` is the result of the accuracy gate: ``{"bfloat16": {"passed", "summary", ...},
    ...}``. ``engines`` says how the conversions to other engines than TorchScript went:
    ``{"openvino": {"passed", "summary", ...}}``. ``torch`` is the version of PyTorch that traced
    the network.
    """

    name: str
    spec: Spec
    weights: Weights
    golden: Golden
    precisions: Mapping[str, Mapping[str, Any]]
    engines: Mapping[str, Mapping[str, Any]]
    torch: str

    def to_map(self) -> dict[str, Any]:
        """The record as a dict for ``json.dumps``."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> Metadata:
        """The inverse of ``json.dumps(record.to_map())``.

        ValueError if ``text`` is not JSON, KeyError or TypeError for missing or unknown fields.
        """
        fields = json.loads(text)
        fields["spec"] = Spec.from_map(fields["spec"])
        fields["weights"] = Weights(**fields["weights"])
        golden = fields["golden"]
        shapes = {name: tuple(golden[name]) for name in ("input_shape", "output_shape")}
        fields["golden"] = Golden(**{**golden, **shapes})
        return cls(**fields)
