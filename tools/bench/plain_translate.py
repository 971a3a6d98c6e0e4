"""The handler that anyone would write first for a network that returns pictures, in float32."""

from __future__ import annotations

import io
from typing import Any

import torch
from PIL import Image
from torchvision.transforms import functional
from ts.torch_handler.base_handler import BaseHandler


class PlainTranslate(BaseHandler):  # type: ignore[misc]
    """A picture in, a PNG out."""

    def preprocess(self, data: list[dict[str, Any]]) -> torch.Tensor:
        files = (io.BytesIO(row.get("data") or row["body"]) for row in data)
        images = (functional.resize(Image.open(file).convert("RGB"), 256) for file in files)
        return torch.stack([functional.to_tensor(image) for image in images]).to(self.device)

    def postprocess(self, data: torch.Tensor) -> list[bytes]:
        pictures = []
        for output in (data + 1) / 2:
            buffer = io.BytesIO()
            functional.to_pil_image(output.clamp(0, 1).cpu()).save(buffer, "PNG")
            pictures.append(buffer.getvalue())
        return pictures
