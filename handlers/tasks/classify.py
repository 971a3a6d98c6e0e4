"""Classification: the most probable classes of a picture, as JSON."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, ClassVar

from handlers.metadata import Output, Spec
from handlers.request import Answer, Integer, Offer, Request
from handlers.tasks import shortest

if TYPE_CHECKING:
    import torch

DEFAULT_TOP_K = 5


class Classify:
    """``{"predictions": [{"class_id", "label", "probability"}, ...]}``, most probable first."""

    output: ClassVar[Output] = "classes"

    def __init__(self, spec: Spec) -> None:
        classes = len(spec.labels)
        top_k = Integer(default=min(DEFAULT_TOP_K, classes), low=1, high=classes)
        self.offer = Offer({"json": "application/json"}, {"top_k": top_k})
        self.canary_options = {"top_k": "1"}
        self._labels = spec.labels

    def answer(self, output: torch.Tensor, request: Request) -> Answer:
        """``output`` holds the logits, ``(classes,) float32``."""
        probabilities, classes = output.softmax(dim=0).topk(request.options["top_k"])
        predictions = [
            {"class_id": i, "label": self._labels[i], "probability": p}
            for i, p in zip(classes.tolist(), shortest(probabilities), strict=True)
        ]
        body = json.dumps({"predictions": predictions}).encode()
        return Answer(body, self.offer.formats[request.format])


TASK = Classify
