"""An archive's YAML: its section ``handler``, parsed and checked, and what batches may be.

Does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from handlers.pictures.limits import LIMITS, Limits

PRECISIONS = ("auto", "float32", "bfloat16", "float16", "int8")
ENGINES = ("auto", "torchscript", "openvino")
# Other names of the precisions.
SYNONYMS = {"fp32": "float32", "fp16": "float16", "half": "float16", "bf16": "bfloat16"}
# `make serve PRECISION=... ENGINE=...` sets these variables, which take precedence over the YAML.
VARIABLES = {"precision": "HANDLER_PRECISION", "engine": "HANDLER_ENGINE"}
# In seconds. TorchServe kills a worker whose batch takes longer, and the whole batch fails.
_RESPONSE_TIMEOUT_S = 120
_CHOICES = {"precision": PRECISIONS, "engine": ENGINES}
_KEYS = ("limits", "precision", "engine", "cpu_batch_pixels")


def batch_size(yaml: Mapping[str, Any]) -> int:
    """The most requests of a batch."""
    return int(yaml.get("batchSize", 1))


def response_timeout(yaml: Mapping[str, Any]) -> int:
    """Seconds that a batch may take."""
    return int(yaml.get("responseTimeout", _RESPONSE_TIMEOUT_S))


@dataclass(frozen=True)
class Settings:
    """The settings of a model's handler.

    ``precision`` is one of PRECISIONS, ``engine`` one of ENGINES; ``handlers.network.engine``
    resolves ``auto``.
    ``cpu_batch_pixels`` limits the input pixels per batch on a CPU; None means no limit of its own.
    """

    limits: Limits = LIMITS
    precision: str = "auto"
    engine: str = "auto"
    cpu_batch_pixels: int | None = None

    @classmethod
    def from_yaml(
        cls,
        yaml: Mapping[str, object],
        environment: Mapping[str, str] | None = None,
        choices: Mapping[str, str | None] | None = None,
    ) -> Settings:
        """The settings in ``yaml``; keys missing from its ``handler`` have their defaults.

        ``choices`` of a precision and an engine that are not None come first, then the variables in
        ``environment`` that VARIABLES names. Raises ValueError with an explanation if a key or a
        value is invalid.
        """
        environment, choices = environment or {}, choices or {}
        section = yaml.get("handler") or {}
        if not isinstance(section, Mapping) or section.keys() - set(_KEYS):
            raise ValueError(f"handler must be a map; its keys are {', '.join(_KEYS)}")
        chosen = {}
        for key, variable in VARIABLES.items():
            chosen[key] = _checked(key, key, section.get(key, "auto"))
            if variable in environment:
                chosen[key] = _checked(key, variable, environment[variable])
            if (choice := choices.get(key)) is not None:
                chosen[key] = _checked(key, key, choice)
        pixels = section.get("cpu_batch_pixels")
        # bool is a subclass of int.
        if pixels is not None and (type(pixels) is not int or pixels <= 0):
            raise ValueError(f"cpu_batch_pixels must be a whole number above 0, not {pixels!r}")
        limits = Limits.from_map(section.get("limits") or {})
        return cls(limits, cpu_batch_pixels=pixels, **chosen)


def _checked(key: str, name: str, value: object) -> str:
    """``value`` or what it is a synonym of; ``name`` is what the user calls it.

    ValueError if it is no choice for ``key``.
    """
    chosen = SYNONYMS.get(value, value) if isinstance(value, str) else ""
    if chosen not in _CHOICES[key]:
        raise ValueError(f"{name} must be one of {', '.join(_CHOICES[key])}, not {value!r}")
    return chosen
