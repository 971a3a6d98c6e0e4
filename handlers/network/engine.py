"""The network of an artefact on a device: which engine runs it, in which precision, and why."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from handlers.errors import LoadError
from handlers.metadata import Spec
from handlers.network import openvino, precision
from handlers.network.artefact import Artefact, read
from handlers.network.openvino import OpenVino
from handlers.network.torchscript import TorchScript
from handlers.pictures.pool import Pixels

logger = logging.getLogger(__name__)


class Engine:
    """The network of an artefact on a device.

    ``wanted_precision`` and ``wanted_engine`` are the values of ``handlers.settings``. ``name`` is
    the engine that runs the network, ``precision`` the type that it computes in; ``reason`` and
    ``precision_reason`` say why. Raises LoadError if the artefact cannot be used.
    """

    def __init__(
        self,
        path: Path,
        device: torch.device,
        wanted_precision: str = "auto",
        wanted_engine: str = "auto",
    ) -> None:
        artefact = read(path)
        self.device = device
        self.metadata = artefact.metadata
        self.precision, self.precision_reason = precision.choose(
            wanted_precision,
            device,
            self.metadata.precisions,
            int8_alone=artefact.is_int8_alone,
        )
        self.name, self.reason, self._network = self._load(artefact, wanted_engine)

    def preprocess(self, pictures: Sequence[Pixels]) -> torch.Tensor:
        """``N`` pictures of one size -> ``(N, 3, H, W) float32`` on the device."""
        batch = torch.stack([to_tensor(picture) for picture in pictures]).to(self.device)
        return to_input(self.metadata.spec, batch)

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """A batch from ``preprocess`` -> the network's output, ``(N, ...) float32`` on the CPU."""
        return self._network(batch)

    def warm_up(self, largest: int) -> None:
        """Run batches of up to ``largest``, so that no client waits for one-time initialisation.

        A lack of memory also shows at the start then. Powers of two suffice: other batch sizes
        behave like the next larger one.
        """
        spec = self.metadata.spec
        side = spec.crop or spec.resize
        black = Pixels((side, side), bytearray(side * side * 3))
        with torch.inference_mode():
            for size in sorted({min(2**n, largest) for n in range(largest.bit_length() + 1)}):
                self(self.preprocess([black] * size))
            if isinstance(self._network, TorchScript) and spec.crop:
                self._network.capture(self.preprocess([black]), largest)

    def _load(
        self, artefact: Artefact, wanted: str
    ) -> tuple[str, str, Callable[[torch.Tensor], torch.Tensor]]:
        """The engine's name, why it runs the network, and the loaded network."""
        if self.precision == "int8":
            if obstacle := self._int8_obstacle(wanted):
                raise LoadError(f"{self.metadata.name} cannot run in int8: {obstacle}")
            return "openvino", "int8 runs in no other", OpenVino(artefact, "int8")
        if wanted == "torchscript":
            reason = "as the configuration says"
        elif obstacle := self._obstacle():
            if wanted == "openvino":
                raise LoadError(f"{self.metadata.name} cannot run in OpenVINO: {obstacle}")
            reason = f"not OpenVINO: {obstacle}"
        else:
            try:
                network = OpenVino(artefact, self.precision)
            except LoadError as error:
                if wanted == "openvino":
                    raise
                logger.warning("OpenVINO failed, so TorchScript runs the network", exc_info=True)
                reason = f"not OpenVINO: {error}"
            else:
                summary = self.metadata.engines["openvino"]["summary"]
                return "openvino", f"a CPU, and the export proved it: {summary}", network
        return "torchscript", reason, TorchScript(artefact, self.device, self.precision)

    def _int8_obstacle(self, wanted: str) -> str | None:
        if self.device.type != "cpu":
            return f"it runs on a CPU, not on {self.device}"
        if wanted == "torchscript":
            return "TorchScript cannot"
        return openvino.missing("int8")

    def _obstacle(self) -> str | None:
        """Why OpenVINO cannot run the network here, or None if it can."""
        if self.device.type != "cpu":
            return "it runs networks on CPUs only"
        figures = self.metadata.engines.get("openvino")
        if figures is None:
            return "the artefact has no network for it: export it again"
        for judged in (figures, figures.get("precisions", {}).get(self.precision, figures)):
            if not judged["passed"]:
                return str(judged["summary"])
        return openvino.missing(self.precision)


def to_tensor(picture: Pixels) -> torch.Tensor:
    """``(H, W, 3) uint8``, a view of the picture's memory."""
    width, height = picture.size
    return torch.frombuffer(picture.data, dtype=torch.uint8).view(height, width, 3)


def to_input(spec: Spec, pixels: torch.Tensor) -> torch.Tensor:
    """``(N, H, W, 3) uint8`` -> ``(N, 3, H, W) float32`` on the same device, as ``spec`` says.

    Copying uint8 to a GPU takes a quarter of the bytes of float32, and the result is channels-last
    without another copy.
    """
    mean, std = (torch.tensor(values, device=pixels.device) for values in (spec.mean, spec.std))
    # (p / 255 - mean) / std in two passes over the data instead of three.
    return pixels.float().mul_(1 / (255 * std)).sub_(mean / std).permute(0, 3, 1, 2)
