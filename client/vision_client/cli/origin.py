"""What an answer depends on besides the photograph, and which answers a repeated command keeps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from rich.console import Console

from vision_client.answers import Answer
from vision_client.cli.photos import STDIN, Photo
from vision_client.client import Client
from vision_client.models import default
from vision_client.show import printable
from vision_client.tasks.decoder import PIXEL, Decoder

# The keys "model" and "weights" and the options of the task, where None is the server's default.
# The server's address is not among them: the name of trained weights contains their digest.
# Empty for an answer of which this is not known.
Origin: TypeAlias = Mapping[str, str | int | None]


class Question:
    """What a command asks about each photograph: the network ``model`` with ``options``.

    If ``model`` is None, it is the server's first of the task. Raises the errors of Client.models.
    """

    def __init__(
        self,
        client: Client,
        decoder: Decoder[Answer],
        model: str | None,
        **options: int | str | None,
    ) -> None:
        self.model = model or default(client.models(), decoder.task)
        self._client = client
        self._decoder = decoder
        self._options = options

    def origin(self, answer: Answer) -> Origin:
        return {"model": self.model, "weights": answer.weights, **self._options}

    def current(self) -> Origin:
        """The origin of an answer now. Only an answer tells the weights over both transports."""
        return self.origin(
            self._client.ask(self._decoder, PIXEL, self.model, **self._decoder.canary)
        )


def unanswered(
    photos: Sequence[Photo], earlier: Mapping[str, Origin], question: Question, console: Console
) -> list[Photo]:
    """The photographs without an answer that ``question`` would get again.

    ``earlier`` has the origins of answers by the names of their photographs. Those that differ are
    counted on ``console``, with the reason. Standard input may be another photograph each time.
    """
    earlier = {name: origin for name, origin in earlier.items() if name != STDIN}
    if not any(photo.name in earlier for photo in photos):
        return list(photos)
    now = question.current()
    is_known = now["weights"] is not None
    remaining = [p for p in photos if not is_known or earlier.get(p.name) != now]
    reasons = Counter(
        _difference(earlier[photo.name], now) for photo in remaining if photo.name in earlier
    )
    for reason, count in reasons.items():
        text = printable(f"{count} asked again: {reason}")
        console.print(text, markup=False, highlight=False, soft_wrap=True)
    return remaining


def _difference(before: Origin, now: Origin) -> str:
    if not before:
        return "an older version did not keep the network, weights and options of its answers"
    if before == now:
        return "the server does not tell its weights"
    return ", ".join(
        f"{key.replace('_', '-')} {_text(key, before.get(key))}, now {_text(key, value)}"
        for key, value in now.items()
        if before.get(key) != value
    )


def _text(key: str, value: str | int | None) -> str:
    if value is None:
        return "unknown" if key in ("model", "weights") else "default"
    return str(value)
