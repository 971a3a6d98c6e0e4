"""Classification: a list of the most probable classes."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass

from vision_client.answers import Answer, Reply
from vision_client.errors import MALFORMED
from vision_client.tasks.decoder import Decoder, Range

TOP_K = Range(default=5, low=1)


@dataclass(frozen=True)
class Prediction:
    """One class: its index from 0, its name, its softmax probability from 0 to 1."""

    class_id: int
    label: str
    probability: float


@dataclass(frozen=True)
class Classification(Answer):
    """The most probable classes, best first."""

    predictions: tuple[Prediction, ...]

    @property
    def best(self) -> Prediction:
        return self.predictions[0]

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the predicted classes, in the order of their indices."""
        return tuple(p.label for p in sorted(self.predictions, key=lambda p: p.class_id))

    def _repr_html_(self) -> str:
        """For notebooks: a table with a bar for each class."""
        rows = "".join(
            f"<tr><td>{100 * p.probability:.2f} %</td>"
            f'<td><meter min="0" max="1" value="{p.probability:.4f}"></meter></td>'
            f'<td style="text-align: left">{html.escape(p.label)}</td></tr>'
            for p in self.predictions
        )
        note = "<p>untrained network: the answer means nothing</p>" if self.untrained else ""
        return f"<table>{rows}</table>{note}"


def decode(reply: Reply, seconds: float) -> Classification:
    """ServerError if ``reply`` is not a list of predictions."""
    try:
        predictions = tuple(
            Prediction(int(p["class_id"]), str(p["label"]), float(p["probability"]))
            for p in json.loads(reply.body)["predictions"]
        )
    except MALFORMED as error:
        raise reply.unexpected("predictions") from error
    if not predictions or not all(0 <= p.probability <= 1 for p in predictions):
        raise reply.unexpected("predictions")
    return Classification(reply.weights, reply.request_id, seconds, predictions)


CLASSIFY = Decoder("classify", decode, canary={"top_k": 1})
