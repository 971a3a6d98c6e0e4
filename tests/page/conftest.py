"""A page on the suite's server, and a browser to look at it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.debian import require
from tests.page.opened import Choose, chromium, page_server, watched
from tests.running import Running
from vision_client import Client


@pytest.fixture(scope="module")
def address(server: Running) -> Iterator[str]:
    with page_server(server.config.inference) as url:
        yield url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Of a module and no longer: while Playwright runs, asyncio.run does not."""
    require("chromium")
    with chromium() as started:
        yield started


@pytest.fixture
def tab(browser: Browser, address: str) -> Iterator[Page]:
    with watched(browser, address) as page:
        yield page


@pytest.fixture
def choose(tmp_path: Path) -> Choose:
    """Picks a file of these bytes, as a person does."""

    def pick(page: Page, data: bytes, name: str = "photo.jpg") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        page.set_input_files("#file", path)
        return path

    return pick


@pytest.fixture(scope="session")
def client(server: Running) -> Iterator[Client]:
    """What the page's answers must agree with."""
    with Client(server.config.inference) as asked:
        yield asked
