"""Crashes, memory and time of a decoder stay in its process, and the next picture is decoded."""

from __future__ import annotations

import dataclasses
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from PIL import Image, ImageCms

from handlers.errors import BadImage, Overloaded, RequestError, TooLarge, UnsupportedFormat
from handlers.pictures.decode import decode
from handlers.pictures.limits import LIMITS, Limits
from handlers.pictures.pool import RESTING_BYTES, DecodePool
from handlers.pictures.resample import resample
from tests.handlers.support import Decoders, Save
from tests.specs import RESNET101

pytestmark = pytest.mark.slow

MakePool = Callable[..., DecodePool]
SOON_S = 60


def soon() -> float:
    return time.monotonic() + SOON_S


@pytest.fixture
def make_pool(decoders: Decoders) -> Iterator[MakePool]:
    made: list[DecodePool] = []

    def make(size: int = 1, *, resting_bytes: int = RESTING_BYTES, **limits: float) -> DecodePool:
        checked = Limits(**limits)  # type: ignore[arg-type]
        made.append(DecodePool(RESNET101, checked, size, resting_bytes))
        return made[-1]

    yield make
    for pool in made:
        pool.close()


@pytest.mark.parametrize("resize", [None, 300])
def test_the_pixels_equal_those_of_decoding_in_this_process(
    make_pool: MakePool, chelsea: bytes, resize: int | None
) -> None:
    pixels = make_pool().decode(chelsea, resize, soon())
    assert pixels.data == resample(RESNET101, decode(chelsea), resize=resize).tobytes()


def test_errors_keep_their_class_and_message(make_pool: MakePool) -> None:
    pool = make_pool()
    with pytest.raises(UnsupportedFormat, match="PDF is not supported: send JPEG"):
        pool.decode(b"%PDF-1.7", None, soon())
    with pytest.raises(BadImage, match="the PNG cannot be decoded"):
        pool.decode(b"\x89PNG\r\n\x1a\n", None, soon())


def test_a_picture_over_the_time_limit_is_refused(
    make_pool: MakePool, heavy: bytes, chelsea: bytes
) -> None:
    pool = make_pool(decode_seconds=0.1)
    with pytest.raises(TooLarge, match=r"more than the limit of 0\.1 s"):
        pool.decode(heavy, None, soon())
    assert pool.decode(chelsea, None, soon()).size == (224, 224)


def test_the_time_limit_applies_to_each_picture(make_pool: MakePool, chelsea: bytes) -> None:
    pool = make_pool(decode_seconds=0.2)
    ends = time.monotonic() + 0.6
    while time.monotonic() < ends:
        pool.decode(chelsea, None, soon())


def test_a_picture_over_the_memory_limit_is_refused(
    decoders: Decoders, make_pool: MakePool, heavy: bytes, chelsea: bytes
) -> None:
    pool = make_pool(decode_bytes=100 * 2**20)
    (process,) = decoders()
    with pytest.raises(TooLarge, match="more memory than the limit of 104857600 bytes"):
        pool.decode(heavy, None, soon())
    assert pool.decode(chelsea, None, soon()).size == (224, 224)
    assert decoders() == [process], "running out of memory does not replace the process"
    assert process.memory_info().rss < 100 * 2**20


@pytest.fixture(scope="module")
def large(saved: Save) -> dict[str, bytes]:
    """A picture of 6 million pixels for each decoder path that allocates memory."""
    image = Image.linear_gradient("L").resize((2450, 2450)).convert("RGB")
    clear, ink = image.convert("RGBA"), image.convert("CMYK")
    clear.putalpha(image.getchannel(0))
    tiffs = ("packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "lzma", "zstd")
    return {
        "jpeg": saved(image, "JPEG"),
        "jpeg progressive": saved(image, "JPEG", progressive=True, subsampling=0),
        "jpeg ink progressive": saved(ink, "JPEG", progressive=True),
        "png": saved(image, compress_level=1),
        "png alpha": saved(clear, compress_level=1),
        "gif": saved(image.convert("P"), "GIF"),
        "bmp": saved(image.convert("1"), "BMP"),
        "webp": saved(image, "WEBP", method=0),
        "webp alpha": saved(clear, "WEBP", method=0),
        "webp lossless": saved(image, "WEBP", lossless=True, method=0, quality=0),
        "webp lossless alpha": saved(clear, "WEBP", lossless=True, method=0, quality=0),
        "avif": saved(image, "AVIF", speed=10),
        "avif alpha": saved(clear, "AVIF", speed=10, subsampling="4:4:4"),
        **{f"tiff {name}": saved(image, "TIFF", compression=name) for name in tiffs},
    }


def test_a_webp_at_its_pixel_limit_fits_into_the_memory_limit(
    make_pool: MakePool, saved: Save
) -> None:
    image = Image.linear_gradient("L").resize((5000, 5000)).convert("RGBA")
    image.putalpha(image.getchannel(0))
    assert image.width * image.height == LIMITS.webp_pixels
    picture = saved(image, "WEBP", lossless=True, method=0, quality=0)
    assert make_pool().decode(picture, None, soon()).size == (224, 224)


@pytest.mark.parametrize("mebibytes", [40, 60, 80])
def test_running_out_of_memory_is_never_reported_as_damage(
    make_pool: MakePool, large: dict[str, bytes], mebibytes: int
) -> None:
    """Decoders report failed allocations in different ways and at several places."""
    pool = make_pool(decode_bytes=mebibytes * 2**20)
    errors = {}
    for name, picture in large.items():
        try:
            pool.decode(picture, None, soon())
        except RequestError as error:
            errors[name] = f"{type(error).__name__}: {error.message}"
    assert len(errors) > 3
    limit = mebibytes * 2**20
    message = f"TooLarge: decoding the picture takes more memory than the limit of {limit} bytes"
    assert errors == dict.fromkeys(errors, message)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_crash_is_a_bad_image(
    decoders: Decoders,
    make_pool: MakePool,
    heavy: bytes,
    chelsea: bytes,
    number: signal.Signals,
) -> None:
    pool = make_pool()
    pool.decode(chelsea, None, soon())
    _later(0.1, decoders()[0].pid, number)
    with pytest.raises(BadImage, match="damaged"):
        pool.decode(heavy, None, soon())
    assert pool.decode(chelsea, None, soon()).size == (224, 224)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_process_killed_while_idle_is_replaced(
    decoders: Decoders, make_pool: MakePool, chelsea: bytes, number: signal.Signals
) -> None:
    pool = make_pool()
    first = pool.decode(chelsea, None, soon())
    (process,) = decoders()
    process.send_signal(number)
    assert pool.decode(chelsea, None, soon()).data == first.data
    assert process not in decoders()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_picture_is_tried_again_if_its_process_was_killed(
    decoders: Decoders, make_pool: MakePool, heavy: bytes, chelsea: bytes, number: signal.Signals
) -> None:
    pool = make_pool()
    pool.decode(chelsea, None, soon())
    _later(0.1, decoders()[0].pid, number)
    assert pool.decode(heavy, None, soon()).size == (224, 224)


def test_the_client_may_retry_if_two_processes_were_killed(
    decoders: Decoders, make_pool: MakePool, heavy: bytes, chelsea: bytes
) -> None:
    pool = make_pool()
    pool.decode(chelsea, None, soon())
    killed: list[psutil.Process] = []

    def kill_two() -> None:
        ends = soon()
        while len(killed) < 2 and time.monotonic() < ends:
            for process in decoders():
                if process not in killed:
                    process.kill()
                    killed.append(process)
            time.sleep(0.01)

    killer = threading.Thread(target=kill_two)
    killer.start()
    with pytest.raises(Overloaded, match="try again"):
        pool.decode(heavy, None, soon())
    killer.join(SOON_S)
    assert len(killed) == 2
    assert pool.decode(chelsea, None, soon()).size == (224, 224)


def test_an_unread_answer_is_not_given_to_the_next_picture(
    decoders: Decoders, make_pool: MakePool, heavy: bytes, chelsea: bytes
) -> None:
    """The worker can run out of memory while it waits for an answer or reads it."""
    pool = make_pool()
    first = pool.decode(chelsea, None, soon())

    def run_out(*_: object) -> None:
        raise MemoryError

    before = signal.signal(signal.SIGALRM, run_out)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(Overloaded, match="no memory"):
            pool.decode(heavy, None, soon())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert pool.decode(chelsea, None, soon()).data == first.data
    assert len(decoders()) == 1


def test_a_picture_that_would_begin_too_late_is_not_decoded(
    decoders: Decoders, make_pool: MakePool, chelsea: bytes
) -> None:
    pool = make_pool()
    pool.decode(chelsea, None, soon())
    before = decoders()
    for _ in range(3):
        with pytest.raises(Overloaded, match="busy"):
            pool.decode(chelsea, None, time.monotonic() - 1)
        with pytest.raises(Overloaded, match="busy"):
            pool.decode(chelsea, None, soon(), start_by=time.monotonic())
    assert decoders() == before


def test_a_picture_that_began_in_time_is_finished(make_pool: MakePool, heavy: bytes) -> None:
    pool = make_pool()
    pixels = pool.decode(heavy, None, soon(), start_by=time.monotonic() + 0.1)
    assert pixels.size == (224, 224)


def test_a_process_that_has_grown_is_replaced(
    decoders: Decoders, make_pool: MakePool, chelsea: bytes
) -> None:
    pool = make_pool(resting_bytes=-(2**30))  # every process has grown by more
    first = pool.decode(chelsea, None, soon())
    pids = {process.pid for process in decoders()}
    for _ in range(4):
        assert pool.decode(chelsea, None, soon()).data == first.data
        with pytest.raises(UnsupportedFormat):
            pool.decode(b"%PDF-1.7", None, soon())
        (process,) = decoders()
        pids.add(process.pid)
    assert len(pids) == 5


def test_a_process_that_has_not_grown_is_kept(
    decoders: Decoders, make_pool: MakePool, heavy: bytes, saved: Save
) -> None:
    pool = make_pool()
    before = decoders()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for i in range(32):
        padded = profile + bytes(3 * 2**20 + i)
        pool.decode(saved(Image.new("RGB", (8, 8)), "TIFF", icc_profile=padded), None, soon())
    pool.decode(heavy, None, soon())
    assert decoders() == before
    assert before[0].memory_info().rss < 100 * 2**20


def test_the_system_kills_decode_processes_first_when_memory_runs_out(
    decoders: Decoders, make_pool: MakePool, chelsea: bytes
) -> None:
    make_pool().decode(chelsea, None, soon())
    (process,) = decoders()
    assert int(Path(f"/proc/{process.pid}/oom_score_adj").read_text()) == 1000


def test_the_deadline_applies_while_decoding(
    make_pool: MakePool, heavy: bytes, chelsea: bytes
) -> None:
    pool = make_pool()
    pool.decode(chelsea, None, soon())
    with pytest.raises(Overloaded, match="not decoded in time"):
        pool.decode(heavy, None, time.monotonic() + 0.1)
    assert pool.decode(chelsea, None, soon()).size == (224, 224)


def test_the_deadline_applies_while_waiting(
    make_pool: MakePool, heavy: bytes, chelsea: bytes
) -> None:
    pool = make_pool()
    pool.decode(chelsea, None, soon())
    busy = threading.Thread(target=pool.decode, args=(heavy, None, soon()))
    busy.start()
    time.sleep(0.1)
    with pytest.raises(Overloaded, match="busy"):
        pool.decode(chelsea, None, time.monotonic() + 0.05)
    busy.join()


def test_processes_end_with_their_worker(decoders: Decoders, chelsea: bytes) -> None:
    reader, writer = os.pipe()
    if os.fork() == 0:  # the worker, which gets killed
        pool = DecodePool(RESNET101, LIMITS, 1)
        pool.decode(chelsea, None, soon())
        os.write(writer, str(decoders()[0].pid).encode())
        os.kill(os.getpid(), signal.SIGKILL)
    os.wait()
    decoder = psutil.Process(int(os.read(reader, 20)))
    os.close(reader)
    os.close(writer)
    decoder.wait(SOON_S)


def test_the_processes_apply_the_limits(make_pool: MakePool, saved: Save) -> None:
    small = make_pool(**dataclasses.asdict(Limits(pixels=63)))
    with pytest.raises(TooLarge, match="8x8 = 64 pixels; the limit is 63"):
        small.decode(saved(Image.new("RGB", (8, 8))), None, soon())


def _later(seconds: float, pid: int, number: signal.Signals) -> None:
    threading.Timer(seconds, os.kill, (pid, number)).start()
