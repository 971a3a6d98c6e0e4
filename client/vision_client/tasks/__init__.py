"""One module per task: its options, its answer and how a reply is decoded."""

from __future__ import annotations

from collections.abc import Mapping

from vision_client.answers import Answer
from vision_client.tasks.classify import CLASSIFY
from vision_client.tasks.decoder import Decoder
from vision_client.tasks.embed import EMBED
from vision_client.tasks.translate import TRANSLATE

DECODERS: Mapping[str, Decoder[Answer]] = {
    CLASSIFY.task: CLASSIFY,
    EMBED.task: EMBED,
    TRANSLATE.task: TRANSLATE,
}
