"""The CycleGAN handler that anyone would write first, float32, for comparison: no part of ours."""

from __future__ import annotations

import io
from typing import Any

import torch
from PIL import Image
from torchvision import transforms
from ts.torch_handler.base_handler import BaseHandler


class PlainCycleGAN(BaseHandler):  # type: ignore[misc]
    """A picture in, a PNG out."""

    transform = transforms.Compose([transforms.Resize(256), transforms.ToTensor()])

    def preprocess(self, data: list[dict[str, Any]]) -> torch.Tensor:
        """Rows -> ``(N, 3, H, W) float32`` in [0, 1]."""
        images = []
        for row in data:
            image = Image.open(io.BytesIO(row.get("data") or row["body"])).convert("RGB")
            images.append(self.transform(image))
        return torch.stack(images).to(self.device)

    def postprocess(self, data: torch.Tensor) -> list[bytes]:
        """``(N, 3, H, W)`` in [-1, 1] -> PNG bytes."""
        pictures = []
        for output in (data + 1) / 2:
            buffer = io.BytesIO()
            transforms.functional.to_pil_image(output.clamp(0, 1).cpu()).save(buffer, "PNG")
            pictures.append(buffer.getvalue())
        return pictures
