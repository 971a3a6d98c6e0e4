"""The page in Chromium, with the real server."""

from __future__ import annotations

import base64
import io
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, expect

from tests.page.opened import PANELS, Choose, page_server, wait_for_answers, watched
from tests.running import Running, free_port
from tests.standin import CLASSIFIER, MODELS, TRANSLATOR, Answering
from vision_client import Client, ServerError

pytestmark = pytest.mark.slow

HEIC = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + bytes(64)


def bars(page: Page) -> list[tuple[str, float]]:
    """Labels and percentages, as shown."""
    rows = page.locator("#classify .bars li").all()
    return [
        (
            row.locator(".label").inner_text(),
            float(row.locator(".percent").inner_text().removesuffix(" %")),
        )
        for row in rows
    ]


def check_bars(page: Page, client: Client, photograph: bytes, top_k: int = 5) -> None:
    """The page shows the classes of ``photograph``."""
    expected = client.classify(photograph, top_k=top_k).predictions
    shown = bars(page)
    assert [label for label, _ in shown] == [prediction.label for prediction in expected]
    assert [percent for _, percent in shown] == pytest.approx(
        [100 * prediction.probability for prediction in expected], abs=0.011
    )


def natural_size(page: Page, image: str = "#after") -> tuple[int, int]:
    width, height = page.eval_on_selector(image, "i => [i.naturalWidth, i.naturalHeight]")
    return width, height


def problem(page: Page, place: str = "#shared-problem") -> list[str]:
    """The lines of the only error, which is shown in ``place``: words, then the code if any."""
    expect(page.locator(f"{place} .problem p, {place}.problem p")).to_be_visible()
    expect(page.locator(".problem p")).to_have_count(1)
    return page.locator(".problem p").inner_text().splitlines()


def shown(error: ServerError) -> list[str]:
    """``error`` as the page shows it."""
    return [error.message[0].upper() + error.message[1:], f"{error.code} {error.type}"]


def encoded(picture: Image.Image, format: str) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format)
    return buffer.getvalue()


def test_an_upload_is_classified_and_translated(
    tab: Page, client: Client, jpeg: bytes, choose: Choose
) -> None:
    choose(tab, jpeg, "my cat.jpg")
    wait_for_answers(tab)
    check_bars(tab, client, jpeg)
    share = tab.locator(".bar").first.evaluate(
        "bar => parseFloat(getComputedStyle(bar, '::before').width) / bar.clientWidth"
    )
    assert share == pytest.approx(bars(tab)[0][1] / 100, abs=0.01)
    expected = client.translate(jpeg)
    assert natural_size(tab) == expected.image().size
    assert natural_size(tab, "#before") == (451, 300)
    for task in PANELS:
        expect(tab.locator(f"#{task} .state")).to_contain_text("Answered in ")
    expect(tab.locator("#name")).to_contain_text("my cat.jpg")
    with tab.expect_download() as download:
        tab.get_by_role("link", name="Download PNG").click()
    assert download.value.suggested_filename == "my cat-translated.png"
    with Image.open(download.value.path()) as saved:
        assert saved.format == "PNG"
        assert saved.tobytes() == expected.image().tobytes()


def test_untrained_networks_are_announced(tab: Page) -> None:
    banner = tab.get_by_role("status").filter(has_text="Untrained")
    expect(banner).to_have_text("Untrained networks: everything works, the answers mean nothing.")
    expect(banner).to_be_in_viewport()


def test_the_server_is_named(tab: Page, server: Running) -> None:
    weights = f" · {CLASSIFIER}: untrained · {TRANSLATOR}: untrained"
    expect(tab.locator("footer")).to_contain_text(f"Server {server.config.inference}{weights}")


def test_the_slider_moves_the_edge(tab: Page) -> None:
    tab.get_by_role("button", name="cat").click()
    wait_for_answers(tab)
    before, slider = tab.locator("#before"), tab.get_by_role("slider")
    expect(before).to_have_css("clip-path", "inset(0px 50% 0px 0px)")
    slider.focus()
    tab.keyboard.press("ArrowLeft")
    expect(before).to_have_css("clip-path", "inset(0px 51% 0px 0px)")
    tab.keyboard.press("End")
    expect(before).to_have_css("clip-path", "inset(0px 0% 0px 0px)")
    box = slider.bounding_box()
    assert box is not None
    tab.mouse.click(box["x"] + 0.97 * box["width"], box["y"] + 10)
    expect(before).to_have_css("clip-path", "inset(0px 3% 0px 0px)")


def test_options_ask_again_what_they_concern(
    tab: Page, client: Client, jpeg: bytes, choose: Choose
) -> None:
    file = choose(tab, jpeg)
    wait_for_answers(tab)
    file.unlink()  # what was chosen is asked about, whatever becomes of the file
    asked: list[str] = []
    tab.on("request", lambda request: asked.append(request.url.rpartition("/")[2]))
    tab.select_option("#top_k", "3")
    expect(tab.locator(".bars li")).to_have_count(3)
    check_bars(tab, client, jpeg, top_k=3)
    # Two changes in a row, as the arrow keys make them, are one question.
    tab.select_option("#size", "128")
    tab.select_option("#format", "webp")
    link = tab.get_by_role("link", name="Download WebP")
    expect(link).to_be_visible()
    assert natural_size(tab) == client.translate(jpeg, size=128).image().size
    assert [url for url in asked if "?" in url] == [
        "classify?top_k=3",
        "translate?size=128&format=webp",
    ]
    with tab.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "photo-translated.webp"
    with Image.open(download.value.path()) as saved:
        assert saved.format == "WEBP"


def test_an_older_photograph_is_not_answered(
    tab: Page, client: Client, photographs: dict[str, Image.Image], choose: Choose
) -> None:
    tab.select_option("#size", "512")  # long enough to be overtaken
    tab.get_by_role("button", name="astronaut").click()
    expect(tab.locator("#name")).to_contain_text("astronaut.jpg")
    tab.select_option("#size", "128")
    choose(tab, encoded(photographs["coffee"], "PNG"), "coffee.png")
    wait_for_answers(tab)
    check_bars(tab, client, encoded(photographs["coffee"], "PNG"))
    assert natural_size(tab) == (192, 128)
    expect(tab.locator("#download")).to_have_attribute("download", "coffee-translated.png")
    tab.wait_for_timeout(3_000)
    assert natural_size(tab) == (192, 128)


def test_by_keyboard_alone(tab: Page, client: Client) -> None:
    for _ in range(10):
        tab.keyboard.press("Tab")
        if tab.locator(".examples button:focus").count():
            break
    ring = tab.locator(".examples button:focus")
    expect(ring).to_have_css("outline-style", "solid")
    tab.keyboard.press("Enter")
    wait_for_answers(tab)
    examples = Path(__file__).parents[2] / "client/vision_client/page/static/examples"
    check_bars(tab, client, (examples / "horses.jpg").read_bytes())


@pytest.mark.parametrize("key", ["Enter", "Space"])
def test_the_drop_zone_opens_by_key(tab: Page, key: str) -> None:
    # Playwright catches choosers from here on; within expect_file_chooser the key may be quicker.
    tab.on("filechooser", lambda chooser: None)
    tab.keyboard.press("Tab")
    expect(tab.locator("#drop")).to_have_css("outline-style", "solid")
    with tab.expect_file_chooser():
        tab.keyboard.press(key)


@pytest.mark.parametrize("event", ["paste", "drop"])
def test_paste_and_drop(tab: Page, client: Client, jpeg: bytes, event: str) -> None:
    tab.evaluate(
        """([event, base64]) => {
            const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "given.jpg", { type: "image/jpeg" }));
            const init = { bubbles: true, cancelable: true };
            const made = event === "paste"
                ? new ClipboardEvent("paste", { ...init, clipboardData: data })
                : new DragEvent("drop", { ...init, dataTransfer: data });
            document.body.dispatchEvent(made);
        }""",
        [event, base64.b64encode(jpeg).decode()],
    )
    wait_for_answers(tab)
    check_bars(tab, client, jpeg)
    expect(tab.locator("#name")).to_contain_text("given.jpg")


def test_pasted_text_is_no_photograph(tab: Page) -> None:
    tab.evaluate(
        """() => {
            const data = new DataTransfer();
            data.setData("text/plain", "a word");
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data }));
        }"""
    )
    expect(tab.locator("#classify .state")).to_contain_text("Nothing yet")


def test_a_photograph_from_the_camera(browser: Browser, address: str) -> None:
    with watched(browser, address, permissions=["camera"]) as page:
        opened = page.get_by_role("button", name="Use the camera")
        opened.click()
        expect(page.get_by_role("dialog")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(page.locator("#name")).to_be_empty()
        opened.click()
        page.get_by_role("button", name="Take the photograph").click()
        wait_for_answers(page)
        expect(page.locator("#name")).to_contain_text("camera.jpg")
        width, height = natural_size(page, "#before")
        assert (width, height) == (640, 480)
        # Chromium's fake camera is green, with a clock: not the black of a camera not yet on.
        green = page.evaluate(
            """() => {
                const canvas = document.createElement("canvas").getContext("2d");
                canvas.drawImage(document.querySelector("#before"), 0, 0);
                return canvas.getImageData(5, 5, 1, 1).data[1];
            }"""
        )
        assert green > 100
        live = "() => document.querySelector('video').srcObject"
        assert page.evaluate(live) is None


def test_a_camera_that_is_refused(tab: Page) -> None:
    tab.get_by_role("button", name="Use the camera").click()
    expect(tab.locator("#source-problem")).to_have_text(
        "No camera: the browser does not let this page use it."
    )


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        pytest.param(b"a word or two", 400, id="text"),
        pytest.param(b"", 400, id="empty"),
        pytest.param(HEIC, 415, id="HEIC"),
        pytest.param(b"\xff\xd8\xff" + bytes(17 * 2**20), 413, id="17 MiB"),
    ],
)
def test_a_bad_file_shows_the_servers_message(
    tab: Page, client: Client, jpeg: bytes, bad: bytes, code: int, choose: Choose
) -> None:
    with pytest.raises(ServerError) as refused:
        client.classify(bad)
    assert refused.value.code == code
    choose(tab, bad)
    assert problem(tab) == shown(refused.value)
    for task in PANELS:
        expect(tab.locator(f"#{task} .state")).to_have_text("No answer")
        expect(tab.locator(f"#{task} .result")).to_be_hidden()
    expect(tab.locator("#name")).to_contain_text("This browser cannot show it")
    expect(tab.get_by_role("button", name="Try again")).to_have_count(0)
    choose(tab, jpeg)
    wait_for_answers(tab)
    expect(tab.locator(".problem p")).to_have_count(0)


def test_more_than_the_page_takes(tab: Page, choose: Choose) -> None:
    choose(tab, bytes(25 * 2**20))
    assert problem(tab)[1] == "413 TooLarge"


def test_a_refusal_by_one_network_leaves_the_others_answer(
    tab: Page, client: Client, photographs: dict[str, Image.Image], choose: Choose
) -> None:
    """1024 pixels high and five times as wide is more than the network takes."""
    long = encoded(photographs["coffee"].resize((500, 100)), "PNG")
    with pytest.raises(ServerError) as refused:
        client.translate(long, size=1024)
    tab.select_option("#size", "1024")
    choose(tab, long)
    assert problem(tab, "#translate") == shown(refused.value)
    expect(tab.locator("#classify .result")).to_be_visible()
    check_bars(tab, client, long)


def test_a_picture_that_the_browser_cannot_show(
    tab: Page, client: Client, photographs: dict[str, Image.Image], choose: Choose
) -> None:
    tiff = encoded(photographs["astronaut"], "TIFF")
    choose(tab, tiff, "photo.tiff")
    wait_for_answers(tab)
    check_bars(tab, client, tiff)
    expect(tab.locator("#unshowable")).to_be_visible()
    expect(tab.locator("#after")).to_be_visible()
    expect(tab.locator("#before")).to_be_hidden()
    expect(tab.get_by_role("slider")).to_be_hidden()


def test_server_down(browser: Browser, jpeg: bytes, choose: Choose) -> None:
    server = f"http://127.0.0.1:{free_port()}"
    message = f"No connection to {server}: Connection refused. Start the server: make start"
    with page_server(server) as address, watched(browser, address) as page:
        assert problem(page, "#notice") == [message, "502 ConnectionFailed"]
        choose(page, jpeg)
        expect(page.locator("#name")).to_contain_text("photo.jpg")
        assert problem(page, "#notice") == [message, "502 ConnectionFailed"]
        expect(page.locator("#untrained")).to_be_empty()
        expect(page.locator("#weights")).to_be_empty()
        expect(page.locator(".panel:visible")).to_have_count(0)


def test_a_network_that_is_not_ready(browser: Browser) -> None:
    with Answering.started() as server, page_server(server.url) as address:
        server.models = (MODELS[0], replace(MODELS[1], ready=False, reason="0 of 1 workers"))
        with watched(browser, address) as page:
            notice, weights = page.locator("#notice p"), page.locator("#weights")
            reason = f"{TRANSLATOR}: 0 of 1 workers."
            expect(notice).to_have_text(f"The server is not ready. {reason}")
            expect(weights).to_have_text(f" · {CLASSIFIER}: untrained · {TRANSLATOR}: not ready")
            server.models = ()
            page.get_by_role("button", name="Try again").click()
            expect(notice).to_have_text("The server has no network that classifies or translates.")
            server.models = MODELS
            page.get_by_role("button", name="Try again").click()
            expect(page.locator("#notice")).to_be_empty()
            expect(weights).to_contain_text(f"{TRANSLATOR}: untrained")
            expect(page.get_by_role("heading", name=f"What {CLASSIFIER} sees")).to_be_visible()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_another_sites_picture_asks_nothing(browser: Browser, host: str) -> None:
    """Another port of this machine is the same site, another name of it is another one."""
    with Answering.started(404) as asked, page_server(asked.url) as address:
        html = f"<img src='{address}/about'><a href='{address}'>to the page</a>".encode()
        headers = {"content-type": b"text/html"}
        with (
            Answering.started(200, headers, html, host) as site,
            browser.new_context() as profile,
        ):
            page = profile.new_page()
            with page.expect_event("requestfailed", lambda request: "/about" in request.url):
                page.goto(site.url)
            assert asked.gets == []
            with page.expect_response(f"{address}/about?") as answered:
                page.get_by_role("link").click()
            assert answered.value.status == 200
            assert asked.gets == ["/models", "/readyz"]


def test_try_again(
    browser: Browser, server: Running, client: Client, jpeg: bytes, choose: Choose
) -> None:
    """The page's own server is gone, and back."""
    port = free_port()
    with ExitStack() as first:
        address = first.enter_context(page_server(server.config.inference, port))
        with watched(browser, address) as page:
            expect(page.locator("#weights")).to_contain_text("untrained")
            first.close()
            choose(page, jpeg)
            assert problem(page)[0].startswith("The page's own server does not answer.")
            with page_server(server.config.inference, port):
                page.get_by_role("button", name="Try again").first.click()
                wait_for_answers(page)
                check_bars(page, client, jpeg)
                expect(page.get_by_role("button", name="Try again")).to_have_count(0)


def test_over_grpc(
    browser: Browser, server: Running, client: Client, jpeg: bytes, choose: Choose
) -> None:
    named = ("--classify", CLASSIFIER, "--translate", TRANSLATOR)
    with (
        page_server(f"grpc://{server.config.grpc}", 0, *named) as address,
        watched(browser, address) as page,
    ):
        expect(page.locator("#weights")).to_contain_text("not reported over gRPC")
        choose(page, jpeg)
        wait_for_answers(page)
        check_bars(page, client, jpeg)
        expect(page.locator("#weights")).to_contain_text(f"{TRANSLATOR}: untrained")
        # The server does not say over gRPC what there is to choose.
        expect(page.locator("#top_k, #size").locator("visible=true")).to_have_count(0)


def test_on_a_phone(browser: Browser, address: str, client: Client, choose: Choose) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with watched(browser, address, **phone) as page:

        def fits() -> bool:
            wide = page.evaluate("() => document.scrollingElement.scrollWidth")
            return bool(wide <= 360)

        assert fits()
        page.get_by_role("button", name="cup of coffee").tap()
        wait_for_answers(page)
        assert fits()
        # Without scrolling by hand.
        expect(page.locator(".bars li").last).to_be_in_viewport()
        for control in page.locator("button:visible, select, a.button, #slider").all():
            box = control.bounding_box()
            assert box is not None
            assert box["height"] >= 44
            assert box["x"] + box["width"] <= 360
        choose(page, b"word" * 20, f"{'long' * 40}.jpg")
        assert problem(page)[1] == "400 BadImage"
        assert fits()
