"""Reads TorchServe's logs: failed loads, dead and busy workers, which its APIs do not report.

TorchServe restarts a worker that dies while loading for minutes, and /ping does not show it. The
log has the worker's traceback immediately.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

# serving/log4j2.xml writes each event as one line with this prefix and escapes line breaks in what
# clients send, so a line that starts with it is TorchServe's own.
_PREFIX = r"^[\d-]+T[\d:,]+ \[[A-Z]+ *\] "
_WORKER = (
    _PREFIX + r"(?P<worker>W-\d+-(?P<model>\S+)_[\d.]+) org\.pytorch\.serve\.wlm\.WorkerThread - "
)
_STATE = re.compile(_WORKER + r"W-\S+ State change \S+ -> (?P<state>WORKER_\w+)$", re.MULTILINE)
_WORK = re.compile(_WORKER + r"(?P<step>Flushing req\.cmd|Backend response time)", re.MULTILINE)
_REFUSED = re.compile(
    _PREFIX + r"main \S+\.ModelServer - Failed to load model: (\S+) +(.*?)(?:\\n.*)?$",
    re.MULTILINE,
)
_OUTPUT = _PREFIX + r"W-\d+-{model}_[\d.]+-std(?:out|err) MODEL_LOG - (.*)$"
_TRACEBACK = "Traceback (most recent call last):"
# The last lines of a worker's output that are shown; the log has all of it.
_SHOWN_LINES = 8


@dataclass(frozen=True)
class Failure:
    """Why a model could not be loaded.

    ``line`` is the most useful exception, ``output`` the last lines of the worker's output up to
    it, which may be empty.
    """

    model: str
    line: str
    output: str


def find_failure(ts_log: str, model_log: str, ignore: Collection[str] = ()) -> Failure | None:
    """The first model that could not be loaded and is not in ``ignore``.

    The first two arguments are the text of the two logs since the start.
    """
    for match in _STATE.finditer(ts_log):
        if match["state"] == "WORKER_STOPPED" and match["model"] not in ignore:
            return _explain(match["model"], model_log)
    refused = _REFUSED.search(ts_log)
    return Failure(refused[1], refused[2], "") if refused else None


def changed_models(ts_log: str) -> set[str]:
    """The models with a worker that changed its state; the management API has the new one."""
    return {match["model"] for match in _STATE.finditer(ts_log)}


def is_working(ts_log: str) -> bool:
    """Whether a worker has a batch at the end of ``ts_log``, of which the tail is enough."""
    last = {match["worker"]: match["step"] for match in _WORK.finditer(ts_log)}
    return "Flushing req.cmd" in last.values()


def _explain(model: str, model_log: str) -> Failure:
    pattern = re.compile(_OUTPUT.replace("{model}", re.escape(model)), re.MULTILINE)
    output = pattern.findall(model_log)
    if _TRACEBACK not in output:
        line = "the worker ended without an exception: perhaps it was killed because memory ran out"
        return Failure(model, line, "\n".join(output[-_SHOWN_LINES:]))
    trace = output[output.index(_TRACEBACK) :]
    exceptions = [i for i, line in enumerate(trace) if re.match(r"[A-Za-z_][\w.]*(?::|$)", line)]
    if not exceptions:  # the log ends within the traceback
        line = "the worker ended with an exception"
        return Failure(model, line, "\n".join(trace[-_SHOWN_LINES:]))
    # After a failed import TorchServe tries its own handlers, and their failure hides the cause.
    masked = any(line.startswith("During handling of the above exception") for line in trace)
    end = exceptions[0 if masked else -1] + 1
    shown = [line for line in trace[:end] if set(line) - set(" ^~")]  # leave out the ^^^^ markers
    return Failure(model, trace[end - 1], "\n".join(shown[-_SHOWN_LINES:]))


class LogTail:
    """The text that is appended to a log file after this object was created."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = path.stat().st_size if path.exists() else 0

    def read(self) -> str:
        """All of that text. Does not advance."""
        return self._from(self._offset).decode("utf-8", "replace")

    def advance(self) -> str:
        """The complete lines since the last call."""
        data = self._from(self._offset)
        data = data[: data.rfind(b"\n") + 1]
        self._offset += len(data)
        return data.decode("utf-8", "replace")

    def last(self, size: int) -> str:
        """The last ``size`` bytes of the file, older text included."""
        end = self._path.stat().st_size if self._path.exists() else 0
        return self._from(max(end - size, 0)).decode("utf-8", "replace")

    def _from(self, offset: int) -> bytes:
        if not self._path.exists():
            return b""
        with self._path.open("rb") as file:
            if file.seek(0, 2) < offset:  # log4j has started a new file
                self._offset = offset = 0
            file.seek(offset)
            return file.read()


class ServerLogs:
    """The two logs of a server in the folder ``logs`` from now on."""

    def __init__(self, logs: Path) -> None:
        self.ts = LogTail(logs / "ts_log.log")
        self._model = LogTail(logs / "model_log.log")

    def find_failure(self, ignore: Collection[str]) -> Failure | None:
        """The first model that could not be loaded and is not in ``ignore``."""
        return find_failure(self.ts.read(), self._model.read(), ignore)
