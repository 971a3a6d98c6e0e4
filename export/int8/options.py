"""What a user asks of int8. Does not import NNCF, which a production installation leaves out."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from export.errors import ExportError
from export.int8.photos import Photos, read
from handlers.metadata import Spec

# The share of photographs whose first class must be float32's.
AGREEMENT = 0.98
# The packages of the extra `int8`, by the name of their module.
PACKAGES = {"nncf": "NNCF", "matplotlib": "Matplotlib", "skimage": "scikit-image"}


@dataclass(frozen=True)
class Int8Options:
    """``photos`` is a folder, ``agreement`` the limit of a classifier's gate.

    With ``alone``, the archive contains the network in int8 and in no other precision. Raises
    ExportError for a limit that is no share, and if this installation cannot quantize.
    """

    photos: Path
    agreement: float = AGREEMENT
    alone: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.agreement <= 1:
            raise ExportError(f"INT8_AGREEMENT must be above 0 and at most 1: {self.agreement:g}")
        for module, name in PACKAGES.items():
            if importlib.util.find_spec(module) is None:
                raise ExportError(f"INT8 needs {name}: make install PRODUCTION= installs it")

    def read(self, spec: Spec) -> Int8Inputs:
        """The photographs as inputs of a network.

        ExportError as ``photos.read`` raises it, and for a network that int8's gate cannot judge.
        """
        if spec.output == "features":
            raise ExportError(f"{spec.name} gives features, which have no int8: leave INT8 out")
        return Int8Inputs(self, read(self.photos, spec))


@dataclass(frozen=True)
class Int8Inputs:
    """What a quantized network depends on beside the float32 one."""

    options: Int8Options
    photos: Photos

    def fingerprint(self) -> str:
        """A JSON text of it."""
        halves = [
            [[photo.file.sha256, photo.file.label] for photo in half]
            for half in (self.photos.calibration, self.photos.judging)
        ]
        return json.dumps([self.options.agreement, self.options.alone, version("nncf"), halves])
