"""What an archive's YAML says to the handler: its section ``handler``, checked. No torch import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from handlers.pictures.limits import LIMITS, Limits

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
# `make serve PRECISION=...` sets it for every model; it has priority over the YAML.
PRECISION_VARIABLE = "HANDLER_PRECISION"


@dataclass(frozen=True)
class Settings:
    """``precision`` is one of PRECISIONS; ``auto`` is decided by ``handlers.network.precision``."""

    limits: Limits = LIMITS
    precision: str = "auto"
    cpu_batch_pixels: int | None = None

    @classmethod
    def from_yaml(cls, yaml: Mapping[str, object], override: str | None = None) -> Settings:
        """The settings of an archive's YAML; what its ``handler`` does not name has its default.

        ``override`` is the value of PRECISION_VARIABLE, or None where it is not set. Raises
        ValueError that says what is wrong, and with which of the two.
        """
        section = yaml.get("handler") or {}
        known = {"limits", "precision", "cpu_batch_pixels"}
        if not isinstance(section, Mapping) or section.keys() - known:
            raise ValueError("handler must be a map of limits, precision and cpu_batch_pixels")
        precision = _checked("precision", section.get("precision", "auto"))
        if override is not None:
            precision = _checked(PRECISION_VARIABLE, override)
        limits = Limits.from_map(section.get("limits") or {})
        return cls(limits, precision, section.get("cpu_batch_pixels"))


def _checked(name: str, precision: object) -> str:
    if not isinstance(precision, str) or precision not in PRECISIONS:
        raise ValueError(f"{name} is one of {', '.join(PRECISIONS)}, not {precision!r}")
    return precision
