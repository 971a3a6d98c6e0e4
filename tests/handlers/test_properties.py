"""Properties of all options, documents, damaged pictures and sizes, checked by hypothesis.

The examples are the same in every run; ``make fuzz`` searches for new ones.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from handlers.errors import BadImage, InvalidOption, NotAcceptable, RequestError
from handlers.formats import format_of, is_picture
from handlers.pictures.limits import LIMITS
from handlers.pictures.pool import DecodePool
from handlers.pictures.resample import resample
from handlers.request import Integer, Upload
from tests.corpus import by_name
from tests.handlers.support import REST, Decoders, upload
from tests.specs import CYCLEGAN, RESNET101
from tools.fuzz.decode import with_valid_checksums

pytestmark = pytest.mark.slow

steady = settings(derandomize=True, database=None, deadline=None, max_examples=200)

# Options as the tasks offer them.
OPTIONS = {
    "top_k": Integer(5, 1, 1000),
    "size": Integer(256, 64, 1024, 4),
    "quality": Integer(90, 1, 95),
}
OFFERED = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}

# Any text, and text that is almost an option.
NUMBERS = st.tuples(
    st.text(" \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u2003", max_size=2),
    st.sampled_from(["", "", "+", "-", "0x", "\u0661"]),
    st.integers(-5, 1100).map(str) | st.text("0123456789_.e", max_size=9),
    st.text(" \t\n\0\x1c\x1f\xa0", max_size=2),
).map("".join)
FORMATS = st.sampled_from(["png", "JPEG", " webp\n", "\x1fpng", "image/png", "p\u0131ng", "json"])
TEXTS = NUMBERS | FORMATS | st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | TEXTS,
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=5), values),
    max_leaves=8,
)


def assert_client_error(error: RequestError) -> None:
    """The error is the client's, and its message is short."""
    assert 400 <= error.code < 500, error
    assert len(error.to_json()) < 300


def chosen(request: Upload, name: str) -> tuple[str, object]:
    """The option's value, or the refusal's type and message; other exceptions fail the test."""
    try:
        if name == "format":
            key = request.format(OFFERED)
            assert key in OFFERED
            return "value", key
        offered = OPTIONS[name]
        value = request.integer(name, offered)
        assert type(value) is int
        assert value in range(offered.low, offered.high + 1, offered.multiple)
        return "value", value
    except (InvalidOption, NotAcceptable) as error:
        assert_client_error(error)
        return type(error).__name__, error.message


def parsed(row: dict[str, Any]) -> Upload | None:
    """The request, or None if it is refused with a client error."""
    try:
        request = upload(row, REST)
    except RequestError as error:
        assert_client_error(error)
        return None
    assert type(request.picture) is bytes
    assert request.picture
    for name in (*OPTIONS, "format"):
        chosen(request, name)
    return request


@steady
@given(st.sampled_from([*OPTIONS, "format"]), TEXTS)
@example("top_k", "\x1d7")  # white space for re, but not for int()
def test_a_value_has_the_same_meaning_in_every_form(name: str, text: str) -> None:
    assume(not is_picture(text.encode()))  # a second picture, which is refused
    document = {"data": "UA==", name: text}
    forms = {
        "header": upload({"body": b"P"}, REST | {"x-" + name.replace("_", "-"): text}),
        "field": upload({"data": b"P", name: text.encode()}, REST),
        "text field": upload({"data": b"P", name: text}, REST),
        "grpc": upload({"data": bytearray(b"P"), name: bytearray(text.encode())}, {}),
        "json": upload({"body": json.dumps(document).encode()}, REST),
        "json by torchserve": upload({"body": document}, REST),
    }
    values = {form: chosen(request, name) for form, request in forms.items()}
    assert len(set(values.values())) == 1, values


@steady
@given(st.sampled_from([*OPTIONS, "format"]), JSON | st.binary(max_size=40))
def test_any_value_is_in_range_or_refused(name: str, value: object) -> None:
    chosen(Upload(b"P", {name: value}, ""), name)


@steady
@given(st.sampled_from([*OPTIONS, "format"]), st.binary(max_size=40))
def test_any_bytes_of_a_field_are_in_range_or_refused(name: str, value: bytes) -> None:
    parsed({"data": b"P", name: value})


# Media ranges and q-values of Accept headers, white space, and parts to be ignored.
RANGES = ["*/*", "image/*", *OFFERED.values()]
Q_VALUES = st.integers(0, 1000)
SPACE = st.text(" \t", max_size=2)
JUNK = st.sampled_from(
    ["", "text/html", "*", "image/", "image/gif;q=1.0", "video/*;q=0.9", ";q=1", "\0", "\u00e9/x"]
)


@steady
@given(st.dictionaries(st.sampled_from(RANGES), Q_VALUES), st.lists(JUNK), st.data())
def test_accept_follows_rfc_9110(
    wanted: dict[str, int], junk: list[str], data: st.DataObject
) -> None:
    parts = list(junk)
    for media, q in wanted.items():
        left, right = data.draw(SPACE), data.draw(SPACE)
        cased = data.draw(st.sampled_from([media, media.upper()]))
        parts.append(f"{left}{cased}{right};{left}q={q / 1000:.3f}{right}")
    accept = ",".join(data.draw(st.permutations(parts)))
    # The most specific range applies.
    weight = {
        key: next((wanted[name] for name in (media, "image/*", "*/*") if name in wanted), 0)
        for key, media in OFFERED.items()
    }
    best = max(weight.values())
    kind, name = chosen(Upload(b"P", {}, accept), "format")
    if not accept.strip():
        assert name == "png"
    elif best == 0:
        assert kind == "NotAcceptable"
    else:
        assert name == next(key for key in OFFERED if weight[key] == best)


@steady
@given(
    st.text() | st.lists(st.sampled_from([*RANGES, ";", ",", "q=", "1", "0.5", " "])).map("".join)
)
def test_any_accept_gives_a_format_or_is_refused(accept: str) -> None:
    chosen(Upload(b"P", {}, accept), "format")


# Tokens of JSON, valid and invalid, deep and huge.
TOKENS = st.sampled_from(
    ["{", "}", "[", "]", ",", ":", '"data"', '"UA=="', '"top_k"', '"\\ud800"', '"', "\\", "\\u00",
     "NaN", "-Infinity", "null", "true", "1", "-0", "1e999", "9" * 5000, "[" * 99, '{"a":' * 99,
     " ", "\0", "\ufeff", "\U0001f40e"]
)  # fmt: skip
DOCUMENTS = (
    st.lists(TOKENS, max_size=12).map("".join)
    | JSON.map(json.dumps)
    | st.fixed_dictionaries({"data": JSON | st.just("UA==")}, optional=dict.fromkeys(OPTIONS, JSON))
    .map(json.dumps)
    | st.tuples(JSON, JSON).map(lambda v: f'{{"data": "UA==", "size": {json.dumps(v[0])}, '
                                f'"si\\u007ae": {json.dumps(v[1])}}}')
)  # fmt: skip


@steady
@given(DOCUMENTS, st.sampled_from(["{}", "{}\n", ' {{"data": {}}}', '{{"data": "UA==", "a": {}}}']))
def test_any_document_is_a_request_or_refused(text: str, around: str) -> None:
    parsed({"body": around.format(text).encode("utf-8", "surrogatepass")})


@steady
@given(JSON)
def test_any_value_that_torchserve_parsed_is_a_request_or_refused(value: object) -> None:
    parsed({"body": value})
    parsed({"body": {"data": value, "top_k": value}})


@steady
@given(
    st.binary(min_size=1, max_size=90),
    st.sampled_from(["", "data:;base64,", "data:image/png;base64,", "data:a/b;c=d;base64,"]),
    st.lists(st.tuples(st.integers(0, 120), st.sampled_from([" ", "\n", "\r\n", "\t"]))),
    st.sets(st.sampled_from(["url-safe", "bare"])),
)
def test_any_common_variant_of_base64_is_decoded(
    picture: bytes, prefix: str, gaps: list[tuple[int, str]], how: set[str]
) -> None:
    text = base64.b64encode(picture).decode()
    if "url-safe" in how:
        text = base64.urlsafe_b64encode(picture).decode()
    if "bare" in how:
        text = text.rstrip("=")
    for at, space in gaps:
        text = text[:at] + space + text[at:]
    request = parsed({"body": json.dumps({"data": prefix + text}).encode()})
    assert request is not None
    assert request.picture == picture


@steady
@given(st.text("AQgw+/-_= \n,;:data64", max_size=40) | st.text(max_size=40))
def test_any_base64_is_a_picture_or_refused(text: str) -> None:
    parsed({"body": json.dumps({"data": text}).encode()})
    parsed({"body": json.dumps({"data": "data:image/png;base64," + text}).encode()})


FORMATS_READ = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
SMALL: dict[str, list[str]] = {name: [] for name in FORMATS_READ}
for case in by_name().values():
    if case.code == 200 and len(case.data) <= 4096:
        SMALL[format_of(case.data)].append(case.name)
LENGTHS = [0, 1, 0x7FFFFFFF, 0xFFFFFFFF]


# Every format with the same probability.
FILES = st.sampled_from(FORMATS_READ).flatmap(lambda name: st.sampled_from(SMALL[name]))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A small valid file of the corpus, damaged: cut, spliced, with flipped bytes or lengths."""
    data = by_name()[draw(FILES)].data
    for _ in range(draw(st.integers(1, 3))):
        # Most faults of decoders are in the header, but its first bytes only choose the decoder.
        at = draw(st.integers(12, 64) | st.integers(12, max(len(data), 12)))
        end = at + draw(st.integers(1, 40))
        match draw(
            st.sampled_from(["flip", "flip", "length", "cut", "truncate", "double", "splice"])
        ):
            case "flip":
                data = data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
            case "length":
                order = draw(st.sampled_from(["big", "little"]))
                size = draw(st.sampled_from([2, 4]))
                value = draw(st.sampled_from(LENGTHS)) & (256**size - 1)
                data = data[:at] + value.to_bytes(size, order) + data[at + size :]
            case "cut":
                data = data[:at] + data[end:]
            case "truncate":
                data = data[:at]
            case "double":
                data = data[:end] + data[at:]
            case "splice":
                other = by_name()[draw(FILES)].data
                data = data[:at] + other[at:end] + data[end:]
    # Without correct checksums a PNG is refused before the rest is read.
    return with_valid_checksums(data) if draw(st.booleans()) else data


@pytest.fixture
def pool(decoders: Decoders) -> Iterator[DecodePool]:
    """Decodes as the workers do, with the cheapest resampling."""
    limits = dataclasses.replace(LIMITS, network_pixels=LIMITS.pixels)
    pool = DecodePool(dataclasses.replace(CYCLEGAN, multiple=1), limits, 1)
    yield pool
    pool.close()


def cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return times.user + times.system


def peak_bytes(process: psutil.Process) -> int:
    """Peak memory so far."""
    match = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{process.pid}/status").read_text())
    assert match
    return int(match[1]) * 1024


def test_damaged_pictures_are_answered_within_bounds(decoders: Decoders, pool: DecodePool) -> None:
    outcomes: set[tuple[str, str]] = set()

    @settings(steady, max_examples=1000)
    @given(damaged())
    def answered(data: bytes) -> None:
        (process,) = decoders()
        spent, memory = cpu_seconds(process), process.memory_info().rss
        try:
            picture = pool.decode(data, None, time.monotonic() + 60)
            width, height = picture.size
            assert 0 < len(picture.data) == width * height * 3
            assert width * height <= LIMITS.pixels
            outcomes.add((format_of(data), "picture"))
        except RequestError as error:
            assert_client_error(error)
            if type(error) is BadImage and is_picture(data):
                outcomes.add((format_of(data), "BadImage"))
        assert process.is_running(), "a decoder crashed or was killed"
        assert cpu_seconds(process) - spent < 2
        if "VmHWM" in Path("/proc/self/status").read_text():
            assert peak_bytes(process) - memory <= LIMITS.decode_bytes

    answered()
    # Every format must have had both outcomes, or the test proves nothing.
    assert outcomes == {(name, how) for name in FORMATS_READ for how in ("picture", "BadImage")}


@st.composite
def sizes(draw: st.DrawFn) -> tuple[int, int]:
    """(width, height), the longer side up to 70,000 and at most 200,000 pixels."""
    long = draw(st.integers(1, 70_000) | st.integers(1, 600) | st.sampled_from([224, 256, 257]))
    short = draw(st.integers(1, min(long, 200_000 // long)))
    return draw(st.sampled_from([(short, long), (long, short)]))


@settings(steady, max_examples=120)
@given(sizes(), st.integers(0, 2**32 - 1))
def test_any_size_is_resampled_as_in_torchvision(size: tuple[int, int], seed: int) -> None:
    width, height = size
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    picture = Image.fromarray(noise)
    ours = resample(RESNET101, picture)
    assert ours.size == (224, 224)
    if max(size) > 60 * min(size):
        return  # torchvision resizes before it crops: 1x20000 would become 256x5120000
    theirs = v2.CenterCrop(224)(v2.Resize(256)(picture))
    difference = np.abs(np.asarray(ours, np.int16) - np.asarray(theirs, np.int16))
    assert difference.max() <= 2
    assert (difference <= 1).mean() >= 0.95
