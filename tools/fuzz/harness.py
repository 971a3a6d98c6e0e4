"""Runs each fuzz target in a child process and reports its findings.

A target is a module with

``check(data)``                  raises if the product misbehaves on ``data``
``seeds()``                      the inputs that mutation starts from
``prepare()``                    optional: settings of the child process
``with_valid_checksums(data)``   optional: corrects checksums after a mutation, at the same length

atheris (libFuzzer) prints a lot and ends its process without returning, so a child process fuzzes
and this one reports. After a finding the run continues, so that a shallow bug does not hide a deep
one; only what ends the child (a crash in C, a hang) ends the run.
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

# CPU time, so that a busy machine does not matter. A picture at the limits takes less.
_CPU_SECONDS = 2.0
# Wall time of one input, for endless loops: libFuzzer then saves the input and ends the process.
_HANG_SECONDS = 60
_INPUT_BYTES = 64 * 2**10
_PROGRESS_SECONDS = 5.0
_STOPPED = 130  # ended by SIGINT, or by the KeyboardInterrupt at the end of the time
_COVERAGE = re.compile(r"cov: (\d+)")


def main(shares: Mapping[str, int], argv: Sequence[str] | None = None) -> int:
    """Fuzz the targets; ``shares`` divides the time among them. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Fuzz the code that reads what clients send.")
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together")
    parser.add_argument(
        "--findings", type=Path, default=KEPT / "new", help="folder for the inputs (%(default)s)"
    )
    arguments = parser.parse_args(argv)
    findings = 0
    try:
        for target, share in shares.items():
            seconds = arguments.seconds * share / sum(shares.values())
            findings += fuzz(target, seconds, arguments.findings.resolve())
    except KeyboardInterrupt:
        print("stopped")
        return _STOPPED
    return 1 if findings else 0


def kept(target: str) -> list[Path]:
    """The inputs of earlier findings of ``target``."""
    return sorted(KEPT.glob(f"{_short(target)}-*"))


def fuzz(target: str, seconds: float, folder: Path) -> int:
    """Fuzz the module ``target``; saves findings in ``folder`` and returns their number."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        corpus, log = Path(temporary, "corpus"), Path(temporary, "log")
        seeds = [*importlib.import_module(target).seeds(), *(p.read_bytes() for p in kept(target))]
        seeds = [seed for seed in seeds if len(seed) <= _INPUT_BYTES]
        corpus.mkdir()
        for number, seed in enumerate(seeds):
            (corpus / f"{number:04}").write_bytes(seed)
        print(f"{_short(target)}: {len(seeds)} seeds, {seconds:g} s", flush=True)
        with log.open("w") as stream:
            child = subprocess.Popen(
                [sys.executable, "-m", __name__, target, str(folder), str(seconds), str(corpus)],
                cwd=ROOT,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
                start_new_session=True,  # Ctrl-C is passed on below
            )
        try:
            findings = _report(child, _short(target), log)
        finally:
            child.send_signal(signal.SIGINT)  # no effect if it has ended
            child.wait()
        if child.returncode != _STOPPED:
            print(f"{_short(target)}: the process ended with status {child.returncode}")
            print(*log.read_text(errors="replace").splitlines()[-20:], sep="\n  ")
            findings += 1
        return findings


def _report(child: subprocess.Popen[str], target: str, log: Path) -> int:
    """Print the messages of ``child`` until it ends; returns the number of its findings."""
    assert child.stdout is not None
    printed = time.monotonic()
    known: set[str] = set()
    state, coverage = "nothing was run", "?"
    with log.open(errors="replace") as libfuzzer:
        try:
            for line in child.stdout:
                if not line.startswith("{"):
                    continue  # atheris prints a line at its end
                message = json.loads(line)
                if "trace" in message:
                    name = message["name"]
                    print(f"{target}: FOUND {name}, {message['bytes']} bytes: {message['path']}")
                    print("(smaller)" if name in known else message["trace"], flush=True)
                    known.add(name)
                    continue
                coverage = [coverage, *_COVERAGE.findall(libfuzzer.read())][-1]
                state = (
                    f"{message['runs']} inputs, {message['runs'] / message['seconds']:.0f}/s, "
                    f"coverage {coverage}, slowest {message['slowest']:.2f} s of CPU "
                    f"({message['slowest_bytes']} bytes), peak memory {message['memory'] >> 10} MiB"
                )
                if time.monotonic() - printed > _PROGRESS_SECONDS:
                    printed = time.monotonic()
                    print(f"{target}: {state}", flush=True)
        finally:
            print(f"{target}: {state}; found {len(known) or 'nothing'}", flush=True)
    return len(known)


def _short(target: str) -> str:
    return target.rpartition(".")[2]


class _TimedCheck:
    """A target's ``check`` with a limit on CPU time; sends findings and progress as JSON lines.

    Ends the run after ``seconds``: libFuzzer checks the clock only after it has run every seed.
    """

    def __init__(self, check: Callable[[bytes], None], prefix: str, seconds: float) -> None:
        self._check, self._prefix, self._seconds = check, prefix, seconds
        self._runs, self._slowest, self._slowest_bytes = 0, 0.0, 0
        self._started = self._reported = 0.0  # monotonic clock
        self._smallest: dict[str, int] = {}  # bytes, by the name of the finding

    def __call__(self, data: bytes) -> None:
        if not self._runs:
            self._started = self._reported = time.monotonic()  # imports are done
        start = time.process_time()
        try:
            self._check(data)
        except Exception as error:  # noqa: BLE001 - every exception from check() is a finding
            at = traceback.extract_tb(error.__traceback__)[-1]
            name = f"{type(error).__name__}-{Path(at.filename).stem}-{at.name}"
            self._save(name, data, traceback.format_exc())
        seconds = time.process_time() - start
        if seconds > _CPU_SECONDS:
            self._save("slow", data, f"{seconds:.1f} s of CPU time")
        self._runs += 1
        if seconds > self._slowest:
            self._slowest, self._slowest_bytes = seconds, len(data)
        now = time.monotonic()
        over = now - self._started > self._seconds
        if over or now - self._reported > 1:
            self._reported = now
            _send(
                runs=self._runs,
                seconds=now - self._started,
                slowest=self._slowest,
                slowest_bytes=self._slowest_bytes,
                memory=_peak(),
            )
        if over:
            raise KeyboardInterrupt

    def _save(self, name: str, data: bytes, trace: str) -> None:
        """Save and report ``data`` unless a smaller input of this finding is known."""
        if len(data) >= self._smallest.get(name, len(data) + 1):
            return
        self._smallest[name] = len(data)
        path = Path(f"{self._prefix}{re.sub(r'[^A-Za-z0-9_-]+', '', name)}.bin")
        if not path.exists() or len(data) < path.stat().st_size:
            path.write_bytes(data)
        _send(name=name, bytes=len(data), path=str(path), trace=trace)


def _send(**message: object) -> None:
    print(json.dumps(message), flush=True)


def _child(target: str, folder: str, seconds: str, corpus: str) -> None:
    """The main function of the child process."""
    import atheris

    # Modules that are imported later, when a picture needs them, are instrumented too.
    with atheris.instrument_imports(include=["handlers", "PIL", target]):
        module = importlib.import_module(target)
        if hasattr(module, "prepare"):
            module.prepare()

        prefix = f"{folder}/{_short(target)}-"
        memory = psutil.Process().memory_info()

        def mutate(data: bytes, size: int, seed: int) -> bytes:
            return bytes(module.with_valid_checksums(atheris.Mutate(data, size)))

        atheris.Setup(
            [
                target,
                f"-max_len={_INPUT_BYTES}",
                f"-timeout={_HANG_SECONDS}",
                f"-rss_limit_mb={(memory.rss + LIMITS.decode_bytes) >> 20}",
                f"-artifact_prefix={prefix}",
                corpus,
            ],
            _TimedCheck(module.check, prefix, float(seconds)),
            custom_mutator=mutate if hasattr(module, "with_valid_checksums") else None,
        )
        # The memory limit of the decode processes: a lying header must not fill the machine.
        data = memory.data + LIMITS.decode_bytes
        resource.setrlimit(resource.RLIMIT_DATA, (data, data))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        atheris.Fuzz()


def _peak() -> int:
    """Peak resident memory in KiB; getrusage would include the parent's."""
    match = re.search(r"VmHWM:\s*(\d+)", Path("/proc/self/status").read_text())
    return int(match[1]) if match else 0


if __name__ == "__main__":
    _child(*sys.argv[1:])
