"""Every link in the pages to a file, heading or picture of the repository has a target."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    page for where in ("", "client", "docs", "examples") for page in (ROOT / where).glob("*.md")
)


def tokens(page: Path) -> list[Token]:
    """The Markdown tokens of ``page``."""
    return MarkdownIt().enable("table").parse(page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors of its headings, by GitHub's rule."""
    parsed = tokens(page)
    headings = [after.content for token, after in pairwise(parsed) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


def links(page: Path) -> list[str]:
    inline = [child for token in tokens(page) for child in token.children or ()]
    targets = [child.attrGet("href") or child.attrGet("src") for child in inline]
    return [str(target) for target in targets if target]


def test_there_are_pages() -> None:
    assert len(PAGES) >= 7
    assert len(links(ROOT / "README.md")) >= 15


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    broken = []
    for link in links(page):
        if re.match(r"https?://", link):
            continue  # tests do not use the network
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []
