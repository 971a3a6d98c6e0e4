"""ResNet-101: a photograph in, its most probable classes out."""

from __future__ import annotations

import json

import torch

from handlers.base import Answer, ImageHandler, Options
from handlers.request import Request


class ResNet101(ImageHandler):
    """``{"predictions": [{"class_id", "label", "probability"}, ...]}``, most probable first."""

    def read_options(self, request: Request) -> Options:
        classes = len(self.spec.labels)
        return Options(
            format=request.media_type({"json": "application/json"}),
            top_k=request.integer("top_k", default=min(5, classes), low=1, high=classes),
        )

    def encode(self, output: torch.Tensor, options: Options) -> Answer:
        probabilities, classes = output.softmax(dim=0).topk(options.top_k)
        predictions = [
            {"class_id": i, "label": self.spec.labels[i], "probability": p}
            for i, p in zip(classes.tolist(), probabilities.tolist(), strict=True)
        ]
        return Answer(json.dumps({"predictions": predictions}).encode(), "application/json")
