"""TorchServe's log -> why a model does not load.

A worker that dies while loading is retried for minutes, silently for whoever asks /ping. Its
traceback is in the log at once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

_DIED = re.compile(r" W-\d+-(?P<model>.+)_[\d.]+ .* State change \S+ -> WORKER_STOPPED$")
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
    """The text that a log file gains after this object was made."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def read(self) -> str:
        if not self._path.exists():
            return ""
        with self._path.open("rb") as file:
            file.seek(self._offset)
            return file.read().decode("utf-8", "replace")
