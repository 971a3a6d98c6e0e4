"""docs/scaling.md has every known difference, and every one is asserted by a test."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.differences import BARE, RAY
from tests.routes import Differs

FOLDER = Path(__file__).parent
PAGE = (FOLDER.parents[1] / "docs/scaling.md").read_text()
TABLE = PAGE.partition("## What differs\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize(("differs", "column"), [(BARE, 2), (RAY, 3)], ids=["bare", "ray"])
def test_the_table_is_complete(differs: Mapping[str, Differs], column: int) -> None:
    rows = [line.split(" | ") for line in TABLE.splitlines() if line.startswith("| ")][1:]
    named = {row[0].removeprefix("| ") for row in rows if "yes" in row[column - 1]}
    assert named == {each.why for each in differs.values()}


@pytest.mark.parametrize("case", sorted({*BARE, *RAY}))
def test_a_difference_is_asserted(case: str) -> None:
    sources = "".join(path.read_text() for path in FOLDER.glob("test_*.py"))
    assert f'"{case}"' in sources
