"""The networks' specifications, for tests of one variant of their preprocessing."""

from __future__ import annotations

from handlers.specs import SPECS

RESNET101, RESNET101_V2 = SPECS["resnet101"]["v1"], SPECS["resnet101"]["v2"]
CYCLEGAN, CYCLEGAN_ORIGINAL = SPECS["cyclegan"]["book"], SPECS["cyclegan"]["original"]
