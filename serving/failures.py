"""TorchServe's log -> what its APIs do not tell: failed loads, dead workers, work in progress.

A worker that dies while loading is retried for minutes, silently for whoever asks /ping. Its
traceback is in the log at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_DIED = re.compile(r" W-\d+-(?P<model>.+)_[\d.]+ .* State change \S+ -> WORKER_STOPPED$")
_LOADED = re.compile(r" W-\d+-(?P<model>.+)_[\d.]+ .* State change \S+ -> WORKER_MODEL_LOADED$")
_WORK = re.compile(r" (W-\S+) \S+\.WorkerThread - (Flushing req\.cmd|Backend response time)")
_REFUSED = re.compile(r" Failed to load model: (?P<model>\S+)")
_OUTPUT = r" W-\d+-{model}_[\d.]+-std(?:out|err) MODEL_LOG - (.*)$"
_TRACEBACK = "Traceback (most recent call last):"


@dataclass(frozen=True)
class Failure:
    """``line`` is the exception that tells most, ``traceback`` all of it (may be empty)."""

    model: str
    line: str
    traceback: str


def find(ts_log: str, model_log: str) -> Failure | None:
    """The first model that could not be loaded, from the text of the two logs since the start."""
    for line in ts_log.splitlines():
        match = _DIED.search(line)
        if match:
            return _explain(match["model"], model_log)
        match = _REFUSED.search(line)
        if match:
            reason = ts_log[ts_log.index(line) :].splitlines()[1:2]
            return Failure(match["model"], "".join(reason), "")
    return None


def changes(ts_log: str) -> list[tuple[str, bool]]:
    """Each worker that was lost (False) or that serves again (True), by model, in order."""
    found = []
    for line in ts_log.splitlines():
        if match := _DIED.search(line):
            found.append((match["model"], False))
        elif match := _LOADED.search(line):
            found.append((match["model"], True))
    return found


def is_working(ts_log: str) -> bool:
    """Whether a worker has a batch by the end of ``ts_log``; its last few hundred lines will do."""
    last = {match[1]: match[2] for match in _WORK.finditer(ts_log)}
    return "Flushing req.cmd" in last.values()


def _explain(model: str, model_log: str) -> Failure:
    pattern = re.compile(_OUTPUT.format(model=re.escape(model)))
    output = [match[1] for line in model_log.splitlines() if (match := pattern.search(line))]
    if _TRACEBACK not in output:
        return Failure(model, "the worker ended without a word: killed, for want of memory?", "")
    trace = output[output.index(_TRACEBACK) :]
    exceptions = [line for line in trace if re.match(r"[A-Za-z_][\w.]*(?::|$)", line)]
    # A failed import makes TorchServe try its own handlers, whose failure then hides ours.
    masked = any(line.startswith("During handling of the above exception") for line in trace)
    chosen = exceptions[0] if masked else exceptions[-1]
    return Failure(model, chosen, "\n".join(trace[: trace.index(chosen) + 1]))


class LogTail:
    """What a log file gains after this object was made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def read(self) -> str:
        """All of it, each time."""
        return self._from(self._offset).decode("utf-8", "replace")

    def advance(self) -> str:
        """The whole lines that are new since the last call."""
        data = self._from(self._offset)
        data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        return data.decode("utf-8", "replace")

    def last(self, size: int) -> str:
        """The file's last ``size`` bytes, older ones too."""
        end = self._path.stat().st_size if self._path.exists() else 0
        return self._from(max(end - size, 0)).decode("utf-8", "replace")

    def _from(self, offset: int) -> bytes:
        if not self._path.exists():
            return b""
        with self._path.open("rb") as file:
            if file.seek(0, 2) < offset:  # it was rolled over
                self._offset = offset = 0
            file.seek(offset)
            return file.read()
