"""The page in a process of its own, and Debian's Chromium."""

from __future__ import annotations

import re
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tools.debian import find

ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-fake-device-for-media-stream",
]

Choose = Callable[..., Path]

# The tasks that the page shows.
PANELS = ("classify", "translate")

# Seconds for the page's server to start or to end.
LIMIT_S = 60
# Long enough for a translation on two busy cores.
ANSWER_MS = 60_000


def command(server: str, port: int = 0, *options: str) -> list[str]:
    """The command that serves the page; port 0 takes a free one."""
    vision = Path(sys.executable).with_name("vision")
    return [str(vision), "page", "--no-open", "--server", server, "--port", str(port), *options]


@contextmanager
def page_server(server: str, port: int = 0, *options: str) -> Iterator[str]:
    """The URL of a page that uses ``server``; ended with Ctrl-C."""
    process = subprocess.Popen(command(server, port, *options), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        try:
            started = select.select([output], [], [], LIMIT_S)[0]
            line = output.readline() if started else f"nothing for {LIMIT_S} s"
            address = re.search(r"http://\S+", line)
            assert address, line
            yield address[0]
            process.send_signal(signal.SIGINT)
            assert process.wait(LIMIT_S) == 0
        finally:
            process.kill()
            process.wait(LIMIT_S)


@contextmanager
def chromium() -> Iterator[Browser]:
    expect.set_options(timeout=ANSWER_MS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find("chromium"), args=ARGUMENTS)
        yield browser
        browser.close()


@contextmanager
def watched(browser: Browser, address: str, **context: Any) -> Iterator[Page]:
    """A tab at ``address``. Fails on console errors and on requests to any other server."""
    messages: list[str] = []
    urls: list[str] = []
    with browser.new_context(**context) as profile:
        page = profile.new_page()
        page.on("console", lambda message: messages.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: urls.append(request.url))
        page.goto(address)
        # What the server says moves the page, perhaps under a click.
        page.wait_for_selector("main[aria-busy=false]", timeout=ANSWER_MS)
        yield page
    # Chromium logs every error response, including those that the page displays.
    expected = "error: Failed to load resource: "
    assert [line for line in messages if not line.startswith(expected)] == []
    assert [url for url in urls if not url.startswith((f"{address}/", f"blob:{address}/"))] == []


def wait_for_answers(page: Page) -> None:
    """Wait until each network has answered and no request is pending."""
    for task in PANELS:
        answered = page.locator(f"#{task}[aria-busy=false] .result")
        expect(answered).to_be_visible()
