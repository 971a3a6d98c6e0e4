"""The section ``handler`` of an archive's YAML, parsed and checked. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from handlers.pictures.limits import LIMITS, Limits

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
# `make serve PRECISION=...` sets this variable, which takes precedence over the YAML.
PRECISION_VARIABLE = "HANDLER_PRECISION"
_KEYS = ("limits", "precision", "cpu_batch_pixels")


@dataclass(frozen=True)
class Settings:
    """The settings of a model's handler.

    ``precision`` is one of PRECISIONS; ``handlers.network.precision`` resolves ``auto``.
    ``cpu_batch_pixels`` limits the input pixels per batch on a CPU; None means no limit of its own.
    """

    limits: Limits = LIMITS
    precision: str = "auto"
    cpu_batch_pixels: int | None = None

    @classmethod
    def from_yaml(cls, yaml: Mapping[str, object], override: str | None = None) -> Settings:
        """The settings in ``yaml``; keys missing from its ``handler`` have their defaults.

        ``override`` is the value of PRECISION_VARIABLE, or None if it is not set. Raises ValueError
        with an explanation if a key or a value is invalid.
        """
        section = yaml.get("handler") or {}
        if not isinstance(section, Mapping) or section.keys() - set(_KEYS):
            raise ValueError(f"handler must be a map; its keys are {', '.join(_KEYS)}")
        precision = _checked("precision", section.get("precision", "auto"))
        if override is not None:
            precision = _checked(PRECISION_VARIABLE, override)
        pixels = section.get("cpu_batch_pixels")
        # bool is a subclass of int.
        if pixels is not None and (type(pixels) is not int or pixels <= 0):
            raise ValueError(f"cpu_batch_pixels must be a whole number above 0, not {pixels!r}")
        return cls(Limits.from_map(section.get("limits") or {}), precision, pixels)


def _checked(name: str, precision: object) -> str:
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ValueError(f"{name} must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    return precision
