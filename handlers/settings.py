"""What an archive's YAML says to the handler: its section ``handler``, checked. No torch import."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from handlers.limits import LIMITS, Limits

PRECISIONS = ("auto", "float32", "bfloat16", "float16")
# `make serve PRECISION=...` says so by it for every model, whatever its YAML says.
PRECISION_VARIABLE = "HANDLER_PRECISION"


@dataclass(frozen=True)
class Settings:
    """``precision`` is one of PRECISIONS; ``handlers.precision`` says what ``auto`` becomes."""

    limits: Limits = LIMITS
    precision: str = "auto"

    @classmethod
    def from_yaml(cls, yaml: Mapping[str, object]) -> Settings:
        """The settings of an archive's YAML; what its ``handler`` does not name has its default.

        Raises ValueError that says what is wrong with the section.
        """
        section = yaml.get("handler") or {}
        if not isinstance(section, Mapping) or section.keys() - {"limits", "precision"}:
            raise ValueError("handler must be a map; the keys in it are limits and precision")
        precision = section.get("precision", "auto")
        if precision not in PRECISIONS:
            raise ValueError(f"precision is one of {', '.join(PRECISIONS)}, not {precision!r}")
        return cls(Limits.from_map(section.get("limits") or {}), precision)
