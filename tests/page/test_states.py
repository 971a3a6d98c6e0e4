"""The page in Chromium, with a server that stands in: what it offers, cancelling, several files."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from email.message import Message

import pytest
from playwright.sync_api import Browser, FilePayload, Page, expect

from tests.page.opened import page_server, wait_for_answers, watched
from tests.standin import LIMIT_S, MODELS, TRANSLATOR, Answer, Answering
from vision_client.tasks.decoder import Range

pytestmark = pytest.mark.slow

CERTAIN = Answer(
    headers={"x-model-weights": b"mine"},
    body=json.dumps(
        {
            "predictions": [
                {"class_id": 0, "label": "rose", "probability": 1.0},
                {"class_id": 1, "label": "tulip", "probability": 0.0},
            ]
        }
    ).encode(),
)
BUSY = Answer(500, body=b'{"code": 500, "type": "InternalError", "message": "top_k is broken"}')
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><circle r="9"/></svg>'


class Painting(Answering):
    """Classifies with certainty; a translation waits for ``finish`` and then fails."""

    def __init__(self) -> None:
        super().__init__(CERTAIN)
        self.finish = threading.Event()
        self.bodies: list[bytes] = []

    def reply(self, path: str, headers: Message, content: bytes) -> Answer:
        self.bodies.append(content)
        if path.endswith(TRANSLATOR):
            assert self.finish.wait(LIMIT_S)
            return BUSY
        return super().reply(path, headers, content)


@pytest.fixture(scope="module")
def painting() -> Iterator[Painting]:
    server = Painting()
    with server.listening():
        yield server
        server.finish.set()


@pytest.fixture(scope="module")
def address(painting: Painting) -> Iterator[str]:
    with page_server(painting.url) as url:
        yield url


@pytest.fixture
def fresh(painting: Painting) -> Painting:
    """Both networks are served, and no translation finishes."""
    painting.models = MODELS
    painting.finish.clear()
    painting.bodies.clear()
    return painting


WIDE = {"viewport": {"width": 1280, "height": 720}}
BARS = "#classify[aria-busy=false] .bars li"


def test_one_network_alone(browser: Browser, address: str, fresh: Painting) -> None:
    """What is not served is not shown, and a network of seven classes offers seven."""
    fresh.models = (replace(MODELS[0], name="flowers", options={"top_k": Range(5, 1, 7)}),)
    with watched(browser, address, **WIDE) as page:
        expect(page.get_by_role("heading", name="What flowers sees")).to_be_visible()
        expect(page.locator("#top_k option")).to_have_text([*"1234567"])
        expect(page.locator("#top_k")).to_have_value("5")
        page.get_by_role("button", name="coffee").click()
        expect(page.locator(BARS)).to_have_count(2)
        for hidden in ("#translate", "#size", "#format"):
            expect(page.locator(hidden)).to_be_hidden()
        expect(page.locator(".problem p")).to_have_count(0)
        # 100.00 % stands on one line, as the other percentage does.
        heights = [row.bounding_box() for row in page.locator(".percent").all()]
        assert len({box and box["height"] for box in heights}) == 1


def test_cancel(browser: Browser, address: str, fresh: Painting) -> None:
    with watched(browser, address) as page:
        state = page.locator("#translate .state")
        page.get_by_role("button", name="coffee").click()
        expect(page.locator(BARS)).to_have_count(2)
        with page.expect_event("requestfailed", lambda request: "/translate" in request.url):
            page.get_by_role("button", name="Cancel").click()
        expect(state).to_have_text("Cancelled")
        expect(page.locator(BARS)).to_have_count(2)
        expect(page.locator(".problem p")).to_have_count(0)
        page.get_by_role("button", name="Ask again").click()
        expect(state).to_have_text("Waiting for the answer …")
        fresh.finish.set()
        expect(state).to_have_text("No answer")
        # An error of one network stands in its panel; a name keeps its form.
        error = page.locator("#translate .problem p")
        assert error.inner_text().splitlines() == ["top_k is broken", "500 InternalError"]
        expect(page.get_by_role("button", name="Try again")).to_have_count(1)


def give(page: Page, *files: tuple[str, str, bytes]) -> None:
    """Choose ``files``: name, media type, content."""
    payloads: list[FilePayload] = [
        {"name": name, "mimeType": kind, "buffer": data} for name, kind, data in files
    ]
    page.set_input_files("#file", payloads)


def test_several_photographs(browser: Browser, address: str, fresh: Painting) -> None:
    with watched(browser, address) as page:
        name, position = page.locator("#name"), page.locator("#position")
        files = [(f"{letter}.jpg", "image/jpeg", letter.encode()) for letter in "abc"]
        give(page, *files)
        expect(name).to_contain_text("a.jpg")
        expect(position).to_have_text("1 of 3")
        for button, at in (("Next", "b"), ("Next", "c"), ("Next", "a"), ("Previous", "c")):
            page.get_by_role("button", name=button).click()
            expect(name).to_contain_text(f"{at}.jpg")
        expect(position).to_have_text("3 of 3")
        expect(page.locator(BARS)).to_have_count(2)
        assert set(fresh.bodies) == {b"a", b"b", b"c"}
        give(page, files[1])
        expect(name).to_contain_text("b.jpg")
        expect(position).to_be_hidden()


def test_a_picture_that_only_the_browser_can_read(
    browser: Browser, address: str, fresh: Painting
) -> None:
    """As HEIC in Safari."""
    with watched(browser, address) as page:
        give(page, ("drawing.svg", "image/svg+xml", SVG))
        expect(page.locator(BARS)).to_have_count(2)
        expect(page.locator("#name")).to_contain_text("sent as a JPEG")
        assert {body[:3] for body in fresh.bodies} == {b"\xff\xd8\xff"}


class Showing(Answering):
    """Classifies, and gives a photograph back as its translation."""

    def __init__(self) -> None:
        labels = ("sorrel", "American black bear", "Mexican hairless", "ox", "warthog")
        predictions = [
            {"class_id": i, "label": label, "probability": 0.9 / 4**i}
            for i, label in enumerate(labels)
        ]
        headers = {"x-model-weights": b"untrained"}
        super().__init__(Answer(200, headers, json.dumps({"predictions": predictions}).encode()))

    def reply(self, path: str, headers: Message, content: bytes) -> Answer:
        if path.endswith(TRANSLATOR):
            return replace(self.answer, body=content)
        return super().reply(path, headers, content)


def test_a_laptop_shows_all_of_the_page(browser: Browser) -> None:
    """Screens of 1366 by 768 and 1440 by 900, without the browser's own bars."""
    with (
        Showing().listening() as server,
        page_server(server.url) as address,
        watched(browser, address) as page,
    ):
        for width, height in ((1366, 650), (1440, 780)):
            page.set_viewport_size({"width": width, "height": height})
            for example in ("horses", "astronaut"):
                page.get_by_role("button", name=example).click()
                wait_for_answers(page)
                expect(page.get_by_role("link", name="Download")).to_be_in_viewport(ratio=1)
                expect(page.get_by_text("Untrained networks")).to_be_in_viewport(ratio=1)
                taller = page.evaluate(
                    "document.scrollingElement.scrollHeight - window.innerHeight"
                )
                assert taller <= 0, (width, height, example)
                picture = page.locator(".compare").bounding_box()
                assert picture
                assert picture["height"] >= 0.4 * height, "large enough to look at"
