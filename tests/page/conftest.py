"""A page that uses the suite's server, and a browser to open it."""

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
    """Scoped to a module, because asyncio.run fails while Playwright runs."""
    require("chromium")
    with chromium() as started:
        yield started


@pytest.fixture
def tab(browser: Browser, address: str) -> Iterator[Page]:
    with watched(browser, address) as page:
        yield page


@pytest.fixture
def choose(tmp_path: Path) -> Choose:
    """Uploads a file with these bytes."""

    def pick(page: Page, data: bytes, name: str = "photo.jpg") -> Path:
        path = tmp_path / name
        path.write_bytes(data)
        page.set_input_files("#file", path)
        return path

    return pick


@pytest.fixture(scope="session")
def client(server: Running) -> Iterator[Client]:
    """A client for the expected answers."""
    with Client(server.config.inference) as connected:
        yield connected
