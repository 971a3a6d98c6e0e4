"""What decoding in processes of its own costs and gains: ``python -m benchmarks.decode``.

Interleaved, so that a noisy machine is noisy for both: each picture is decoded and resampled for
ResNet-101 in this process, then through a DecodePool, ``--rounds`` times.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from benchmarks.pictures import SIZES, photograph
from handlers.errors import TooLarge
from handlers.pictures.decode import decode
from handlers.pictures.limits import LIMITS, Limits
from handlers.pictures.pool import DecodePool
from handlers.pictures.resample import resample
from tests.specs import RESNET101

PROCESSES = 2


def milliseconds(work: Callable[[bytes], object], data: bytes) -> float:
    begun = time.perf_counter()
    work(data)
    return 1e3 * (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    rounds = parser.parse_args().rounds
    pool = DecodePool(RESNET101, LIMITS, PROCESSES)

    def pooled(data: bytes) -> object:
        return pool.decode(data, None, time.monotonic() + 60)

    def in_worker(data: bytes) -> object:
        return resample(RESNET101, decode(data, resize=RESNET101.resize))

    def batch(data: bytes) -> object:
        return list(threads.map(pooled, [data] * 8))

    print(f"{'JPEG':<10} {'in the worker':>14} {'pool, one':>10} {'pool, eight':>12}  ms a picture")
    with ThreadPoolExecutor(PROCESSES) as threads:
        for name, size in SIZES.items():
            data = photograph(size)
            here, one, eight = [], [], []
            for _ in range(rounds):
                here.append(milliseconds(in_worker, data))
                one.append(milliseconds(pooled, data))
                eight.append(milliseconds(batch, data) / 8)
            row = (statistics.median(times) for times in (here, one, eight))
            print("{:<10} {:>14.2f} {:>10.2f} {:>12.2f}".format(name, *row))
    pool.close()

    limits = Limits(decode_seconds=0.2)
    pool = DecodePool(RESNET101, limits, 1)
    heavy, light = photograph((8000, 6000)), photograph(SIZES["320x240"])
    pool.decode(light, None, time.monotonic() + 60)
    begun = time.perf_counter()
    try:
        pool.decode(heavy, None, time.monotonic() + 60)
    except TooLarge:
        ended = time.perf_counter() - begun
        again = milliseconds(pooled, light)
        print(
            f"a picture over a limit of {limits.decode_seconds} s is refused after {ended:.2f} s;"
        )
        print(f"the next one, with the start of another process, takes {again:.0f} ms")
    pool.close()


if __name__ == "__main__":
    main()
