"""The specifications of the bundle's networks, without labels, as tests need them."""

from __future__ import annotations

import dataclasses

from export.networks import registered
from handlers.metadata import Spec


def _spec(name: str, variant: str) -> Spec:
    return dataclasses.replace(registered()[name].spec(variant), labels=())


RESNET101, RESNET101_V2 = _spec("resnet101", "v1"), _spec("resnet101", "v2")
CYCLEGAN, CYCLEGAN_ORIGINAL = _spec("cyclegan", "book"), _spec("cyclegan", "original")
