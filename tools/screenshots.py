"""Takes the screenshots in docs/ with a running server: ``python -m tools.screenshots``."""

from __future__ import annotations

import argparse
import io
import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import Browser

from tests.page.opened import chromium, page_server, wait_for_answers, watched
from tools.terminal import in_terminal, picture, plain

DOCS = Path(__file__).parents[1] / "docs"

WIDE = {"viewport": {"width": 1200, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "is_mobile": True}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", default="http://127.0.0.1:8080")
    parser.add_argument("--folder", type=Path, default=DOCS)
    arguments = parser.parse_args()
    with page_server(arguments.server) as address, chromium() as browser:
        for name, context in (("page.png", WIDE), ("page-phone.png", PHONE)):
            path = arguments.folder / name
            save(path, screenshot(browser, address, **context))
            print(f"{path}: {path.stat().st_size:,} bytes")
        path = arguments.folder / "terminal.png"
        path.write_bytes(picture(browser, session(arguments.server), "vision"))
        print(f"{path}: {path.stat().st_size:,} bytes")


def screenshot(browser: Browser, address: str, **context: object) -> bytes:
    """A PNG of the whole page with the answers to one of its example photographs."""
    with watched(browser, address, **context) as page:
        page.get_by_role("button", name="horses").click()
        wait_for_answers(page)
        page.mouse.move(0, 0)
        page.wait_for_timeout(1000)  # a phone scrolls to the answers
        return page.screenshot(full_page=True)


def session(server: str) -> str:
    """The terminal output of two commands on the sample photograph."""
    vision = Path(sys.executable).with_name("vision")
    output = ""
    with TemporaryDirectory() as folder:
        shutil.copy(Path(__file__).with_name("sample.jpg"), Path(folder) / "cat.jpg")
        for arguments in ("classify cat.jpg", "translate cat.jpg -o zebras"):
            env = {**os.environ, "VISION_SERVER": server}
            status, printed = in_terminal([vision, *arguments.split()], env, Path(folder))
            if status:
                raise SystemExit(plain(printed))
            output += f"\x1b[1m$ vision {arguments}\x1b[0m\n{printed}"
    return output


def save(path: Path, png: bytes) -> None:
    """Save as a PNG of 160 colours, dithered: less than half the bytes."""
    with Image.open(io.BytesIO(png)) as picture:
        rgb = picture.convert("RGB")
        rgb.quantize(palette=rgb.quantize(160)).save(path, optimize=True)


if __name__ == "__main__":
    main()
