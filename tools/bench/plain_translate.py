"""The handler that anyone would write first for a network that returns pictures, in float32."""

from __future__ import annotations

import io

import torch
from torchvision import transforms
from ts.torch_handler.vision_handler import VisionHandler


class PlainTranslate(VisionHandler):  # type: ignore[misc]
    """A picture in, a PNG out."""

    image_processing = transforms.Compose([transforms.Resize(256), transforms.ToTensor()])

    def postprocess(self, data: torch.Tensor) -> list[bytes]:
        """``(N, 3, H, W)`` in [-1, 1] -> PNG bytes."""
        pictures = []
        for output in (data + 1) / 2:
            buffer = io.BytesIO()
            transforms.functional.to_pil_image(output.clamp(0, 1).cpu()).save(buffer, "PNG")
            pictures.append(buffer.getvalue())
        return pictures
