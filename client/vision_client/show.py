"""Answers in a terminal: ranked bars, pictures, and escaped text."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Iterable, Mapping

from PIL import Image, ImageOps
from rich.console import Console
from rich.text import Text
from rich_pixels import Pixels

from vision_client.pictures import Picture, encoded
from vision_client.tasks.classify import Prediction

BAR = 30
GAP = 8  # pixels between before and after
COLUMNS = 76  # the maximum width of a picture
# The limit of kitty's protocol for a chunk of base64, in bytes.
KITTY_CHUNK = 4096
# C0 and C1 control characters, line and paragraph separators, bidirectional controls, and the
# surrogates that stand for bytes of a file name that are not UTF-8.
_UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    """``text`` with control characters escaped (``\\x1b``), so that a terminal shows them.

    For file names and text from a server.
    """
    return _UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def bars(predictions: Iterable[Prediction]) -> Text:
    """One line per prediction: percentage, bar, and the label at the end of the bar."""
    text = Text()
    for rank, prediction in enumerate(predictions):
        style = "bold" if rank == 0 else ""
        text.append(f"  {100 * prediction.probability:6.2f} % ", style)
        text.append("█" * round(BAR * prediction.probability) or "▏", "green")
        text.append(f" {printable(prediction.label)}\n", style)
    text.rstrip()
    return text


def side_by_side(photograph: Picture, translated: Image.Image) -> Image.Image:
    """Both in one picture; the photograph is upright and has the size of its translation."""
    width, height = translated.size
    with Image.open(io.BytesIO(encoded(photograph))) as before:
        before.draft("RGB", translated.size)  # decodes a large JPEG at a fraction of its size
        upright = ImageOps.exif_transpose(before).convert("RGB").resize(translated.size)
    both = Image.new("RGB", (2 * width + GAP, height), "white")
    both.paste(upright, (0, 0))
    both.paste(translated, (width + GAP, 0))
    return both


def draw(image: Image.Image, console: Console, environment: Mapping[str, str]) -> None:
    """Draw ``image`` as well as the terminal can.

    Terminals with kitty's or iTerm2's protocol show all pixels. Others with at least 256 colours
    show two pixels per character. The rest, and pipes, get nothing.
    """
    program = environment.get("TERM_PROGRAM", "")
    inside_tmux = "TMUX" in environment  # it does not forward the protocols
    colours = console.color_system in ("256", "truecolor") and not console.no_color
    if not console.is_terminal or not colours:
        return
    if not inside_tmux and ("KITTY_WINDOW_ID" in environment or program in ("ghostty", "WezTerm")):
        console.file.write(_kitty(_png(image)))
    elif not inside_tmux and program in ("iTerm.app", "vscode"):
        console.file.write(_iterm(_png(image)))
    else:
        console.print(Pixels.from_image(_fitted(image, min(COLUMNS, console.width))))


def _fitted(image: Image.Image, columns: int) -> Image.Image:
    """At most ``columns`` wide, with an even number of rows, because a character shows two."""
    width = min(columns, image.width)
    height = max(2, round(image.height * width / image.width / 2) * 2)
    return image.resize((width, height))


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def _kitty(png: bytes) -> str:
    """Kitty's graphics protocol: f=100 is PNG, a=T transmits and displays, m=1: more follows."""
    data = base64.standard_b64encode(png).decode()
    chunks = [data[i : i + KITTY_CHUNK] for i in range(0, len(data), KITTY_CHUNK)]
    parts = []
    for i, chunk in enumerate(chunks):
        first = "a=T,f=100," if i == 0 else ""
        parts.append(f"\x1b_G{first}m={int(i + 1 < len(chunks))};{chunk}\x1b\\")
    return "".join(parts) + "\n"


def _iterm(png: bytes) -> str:
    """iTerm2's inline images."""
    data = base64.standard_b64encode(png).decode()
    return f"\x1b]1337;File=inline=1;size={len(png)}:{data}\x07\n"
