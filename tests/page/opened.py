"""The page as a person has it: its own process, and Debian's Chromium."""

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

MODELS = ("resnet101", "cyclegan")
# How long a test waits for the page to start or to end, before it fails.
LIMIT_S = 60
# A translation on two busy cores.
ANSWER_MS = 60_000


def command(server: str, port: int = 0) -> list[str]:
    """What serves the page; port 0 takes a free one."""
    vision = Path(sys.executable).with_name("vision")
    return [str(vision), "page", "--no-open", "--server", server, "--port", str(port)]


@contextmanager
def page_server(server: str, port: int = 0) -> Iterator[str]:
    """The address of a page that asks ``server``; ended with Ctrl-C."""
    process = subprocess.Popen(command(server, port), stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout as output:
        try:
            started = select.select([output], [], [], LIMIT_S)[0]
            said = output.readline() if started else f"nothing for {LIMIT_S} s"
            address = re.search(r"http://\S+", said)
            assert address, said
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
    """A tab at ``address``; whatever it does there, nothing may go wrong or leave that server."""
    wrong: list[str] = []
    asked: list[str] = []
    with browser.new_context(**context) as profile:
        page = profile.new_page()
        page.on("console", lambda message: wrong.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(address)
        yield page
    # Chromium says so of every answer that is an error, those that the page shows as such too.
    expected = "error: Failed to load resource: "
    assert [line for line in wrong if not line.startswith(expected)] == []
    assert [url for url in asked if not url.startswith((f"{address}/", f"blob:{address}/"))] == []


def wait_for_answers(page: Page) -> None:
    """Both networks have answered, and neither is being asked again."""
    for model in MODELS:
        answered = page.locator(f"#{model}[aria-busy=false] .result")
        expect(answered).to_be_visible()
