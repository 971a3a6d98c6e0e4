"""Runs fuzz targets, each in a process of its own, and says what a person needs to know.

A target is a module with

``check(data)``     raises where what came of ``data`` is not allowed
``seeds()``         the inputs that mutation starts from
``prepare()``       optional: settings of the process
``mended(data)``    optional: puts checksums right after a mutation, at the same length

atheris (libFuzzer) prints a lot and ends its process as it likes: the process fuzzes, this one
reports. A finding is saved and the run goes on, so that a shallow bug hides no deep one; only what
ends the process (a crash in C, a hang) ends the run.
"""

from __future__ import annotations

import argparse
import importlib
import json
import re
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from handlers.pictures.limits import LIMITS

ROOT = Path(__file__).parents[2]
KEPT = Path(__file__).parent / "kept"

# Of CPU time: the same on a busy machine. A picture at the limits takes less.
_CPU_SECONDS = 2.0
# Of wall time, for what never ends: libFuzzer then saves the input and ends the process.
_HANG_SECONDS = 60
_INPUT_BYTES = 64 * 2**10
_PROGRESS_SECONDS = 5.0
_STOPPED = 130  # by SIGINT, or what the clock raises
_COVERAGE = re.compile(r"cov: (\d+)")


def main(shares: Mapping[str, int], argv: Sequence[str] | None = None) -> int:
    """The command line; ``shares`` are the targets and how they split the time. The exit status."""
    parser = argparse.ArgumentParser(description="Fuzz what strangers send.")
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together")
    parser.add_argument(
        "--findings", type=Path, default=KEPT / "new", help="where their inputs go (%(default)s)"
    )
    options = parser.parse_args(argv)
    found = 0
    try:
        for target, share in shares.items():
            seconds = options.seconds * share / sum(shares.values())
            found += fuzz(target, seconds, options.findings.resolve())
    except KeyboardInterrupt:
        print("stopped")
        return _STOPPED
    return 1 if found else 0


def kept(target: str) -> list[Path]:
    """The inputs of earlier findings of ``target``."""
    return sorted(KEPT.glob(f"{_short(target)}-*"))


def fuzz(target: str, seconds: float, findings: Path) -> int:
    """Fuzz the module ``target``; saves what it finds in ``findings``, prints, and counts it."""
    findings.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        corpus, log = Path(folder, "corpus"), Path(folder, "log")
        seeds = [*importlib.import_module(target).seeds(), *(p.read_bytes() for p in kept(target))]
        seeds = [seed for seed in seeds if len(seed) <= _INPUT_BYTES]
        corpus.mkdir()
        for number, seed in enumerate(seeds):
            (corpus / f"{number:04}").write_bytes(seed)
        print(f"{_short(target)}: {len(seeds)} seeds, {seconds:g} s", flush=True)
        with log.open("w") as stream:
            child = subprocess.Popen(
                [sys.executable, "-m", __name__, target, str(findings), str(seconds), str(corpus)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                start_new_session=True,  # Ctrl-C is passed on below
            )
        try:
            found = _report(child, _short(target), log)
        finally:
            child.send_signal(signal.SIGINT)  # nothing, where it has ended
            child.wait()
        if child.returncode != _STOPPED:
            print(f"{_short(target)}: the process ended with status {child.returncode}")
            print(*log.read_text(errors="replace").splitlines()[-20:], sep="\n  ")
            found += 1
        return found


def _report(child: subprocess.Popen[str], target: str, log: Path) -> int:
    """Print what the process tells, until it ends; the number of its findings."""
    assert child.stdout is not None
    printed = time.monotonic()
    known: set[str] = set()
    state, coverage = "nothing was run", "?"
    with log.open(errors="replace") as libfuzzer:
        try:
            for line in child.stdout:
                if not line.startswith("{"):
                    continue  # atheris's farewell
                told = json.loads(line)
                if "trace" in told:
                    new = told["what"] not in known
                    known.add(told["what"])
                    print(f"{target}: FOUND {told['what']}, {told['bytes']} bytes: {told['path']}")
                    print(told["trace"] if new else "(smaller)", flush=True)
                    continue
                coverage = [coverage, *_COVERAGE.findall(libfuzzer.read())][-1]
                state = (
                    f"{told['runs']} inputs, {told['runs'] / told['seconds']:.0f} a second, "
                    f"coverage {coverage}, "
                    f"slowest {told['slowest']:.2f} s of CPU ({told['slowest_bytes']} bytes), "
                    f"memory at most {told['memory'] >> 10} MiB"
                )
                if time.monotonic() - printed > _PROGRESS_SECONDS:
                    printed = time.monotonic()
                    print(f"{target}: {state}", flush=True)
        finally:
            print(f"{target}: {state}; found {len(known) or 'nothing'}", flush=True)
    return len(known)


def _short(target: str) -> str:
    return target.rpartition(".")[2]


class _Watched:
    """A target's ``check`` under a watch on CPU time; tells what happens as lines of JSON.

    Ends the run after ``seconds``: libFuzzer looks at the clock only once it has run every seed.
    """

    def __init__(self, check: Callable[[bytes], None], saved: str, seconds: float) -> None:
        self._check, self._saved, self._seconds = check, saved, seconds
        self._runs, self._slowest, self._slowest_bytes = 0, 0.0, 0
        self._started = self._told = 0.0  # by the monotonic clock
        self._found_bytes: dict[str, int] = {}

    def __call__(self, data: bytes) -> None:
        if not self._runs:
            self._started = self._told = time.monotonic()  # imports are done
        start = time.process_time()
        try:
            self._check(data)
        except Exception as error:  # noqa: BLE001 - all that check() lets out is a finding
            at = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}-{Path(at.filename).stem}-{at.name}"
            self._found(what, data, traceback.format_exc())
        seconds = time.process_time() - start
        if seconds > _CPU_SECONDS:
            self._found("slow", data, f"{seconds:.1f} s of CPU time")
        self._runs += 1
        if seconds > self._slowest:
            self._slowest, self._slowest_bytes = seconds, len(data)
        now = time.monotonic()
        over = now - self._started > self._seconds
        if over or now - self._told > 1:
            self._told = now
            _tell(
                runs=self._runs,
                seconds=now - self._started,
                slowest=self._slowest,
                slowest_bytes=self._slowest_bytes,
                memory=_peak(),
            )
        if over:
            raise KeyboardInterrupt

    def _found(self, what: str, data: bytes, trace: str) -> None:
        """Saved and told, unless one at least as small did the same."""
        if len(data) >= self._found_bytes.get(what, len(data) + 1):
            return
        self._found_bytes[what] = len(data)
        path = Path(f"{self._saved}{re.sub(r'[^A-Za-z0-9_-]+', '', what)}.bin")
        if not path.exists() or len(data) < path.stat().st_size:
            path.write_bytes(data)
        _tell(what=what, bytes=len(data), path=str(path), trace=trace)


def _tell(**what: object) -> None:
    print(json.dumps(what), flush=True)


def _child(target: str, findings: str, seconds: str, corpus: str) -> None:
    """What the process does."""
    import atheris

    # Imports that wait until a picture needs them are instrumented too.
    with atheris.instrument_imports(include=["handlers", "PIL", target]):
        module = importlib.import_module(target)
        if hasattr(module, "prepare"):
            module.prepare()

        saved = f"{findings}/{_short(target)}-"
        memory = psutil.Process().memory_info()

        def mutated(data: bytes, size: int, seed: int) -> bytes:
            return bytes(module.mended(atheris.Mutate(data, size)))

        atheris.Setup(
            [
                target,
                f"-max_len={_INPUT_BYTES}",
                f"-timeout={_HANG_SECONDS}",
                f"-rss_limit_mb={(memory.rss + LIMITS.decode_bytes) >> 20}",
                f"-artifact_prefix={saved}",
                corpus,
            ],
            _Watched(module.check, saved, float(seconds)),
            custom_mutator=mutated if hasattr(module, "mended") else None,
        )
        # As the decode processes do: a header that lies fills no machine.
        data = memory.data + LIMITS.decode_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (data, data))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        atheris.Fuzz()


def _peak() -> int:
    """Resident memory at its highest, in KiB: getrusage's counts the parent's."""
    found = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) if found else 0


if __name__ == "__main__":
    _child(*sys.argv[1:])
