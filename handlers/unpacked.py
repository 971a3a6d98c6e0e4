"""An unpacked archive: what a worker of any server makes its service from.

The folder is what is in a ``.mar``; ``MAR-INF/MANIFEST.json`` names the files of the model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from handlers.errors import LoadError
from handlers.service import CPU, Service
from handlers.settings import Settings, batch_size, response_timeout

MANIFEST = "MAR-INF/MANIFEST.json"
# The part of a batch's time that decoding may take.
DECODE_SHARE = 0.5


@dataclass(frozen=True)
class Unpacked:
    """``artefact`` is the network's file; ``yaml`` holds TorchServe's options for the model."""

    artefact: Path
    yaml: Mapping[str, Any]

    @property
    def batch_size(self) -> int:
        """The most requests of a batch."""
        return batch_size(self.yaml)

    @property
    def response_timeout(self) -> int:
        """Seconds that a batch may take."""
        return response_timeout(self.yaml)

    def service(
        self,
        device: torch.device = CPU,
        environment: Mapping[str, str] | None = None,
        *,
        batch_size: int | None = None,
        precision: str | None = None,
        engine: str | None = None,
    ) -> Service:
        """Load the network on ``device``; what is None is as the YAML says.

        ``precision`` and ``engine`` come before the variables in ``environment``, and these before
        the YAML. Raises LoadError if an option is wrong or the network cannot be served here.
        """
        choices = {"precision": precision, "engine": engine}
        try:
            settings = Settings.from_yaml(self.yaml, environment, choices)
        except ValueError as error:
            raise LoadError(f"the settings of the model: {error}") from error
        return Service(
            self.artefact,
            device,
            settings,
            batch_size=batch_size or self.batch_size,
            decode_seconds=DECODE_SHARE * self.response_timeout,
        )


def read(folder: Path) -> Unpacked:
    """The archive that is unpacked in ``folder``. Raises LoadError if its files are not there."""
    try:
        artefact, options = members((folder / MANIFEST).read_bytes())
        parsed = yaml.safe_load((folder / options).read_bytes()) if options else None
        if not isinstance(parsed or {}, Mapping):
            raise ValueError(f"{options} is not a map")
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise LoadError(f"{folder} is not an unpacked archive: {error}") from error
    return Unpacked(folder / artefact, parsed or {})


def members(manifest: bytes) -> tuple[str, str | None]:
    """The names of the network's file and of the YAML, if there is one, in a manifest.

    Raises ValueError if it is not a manifest, or if a name is not that of a file beside it.
    """
    try:
        model = json.loads(manifest)["model"]
        names = model["serializedFile"], model.get("configFile")
        if not all(Path(name).name == name for name in names if name is not None):
            raise ValueError(f"{MANIFEST} names files in other folders")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{MANIFEST} does not name the network's file") from error
    return names


def find_device(wanted: str = "auto") -> torch.device:
    """``auto`` is the GPU if PyTorch can use one, else the CPU; or ``gpu``, ``cpu``.

    Raises LoadError for another word, and for ``gpu`` without one.
    """
    if wanted not in ("auto", "gpu", "cpu"):
        raise LoadError(f"the device must be auto, gpu or cpu, not {wanted!r}")
    if wanted != "cpu" and torch.cuda.is_available():
        return torch.device("cuda", 0)
    if wanted == "gpu":
        raise LoadError(
            f"PyTorch {torch.__version__} cannot use a GPU here: check the NVIDIA driver, or "
            "choose the CPU (device cpu)"
        )
    return CPU
