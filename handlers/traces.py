"""Reports the stages of traced requests to the supervisor, which makes spans of them.

`make serve` sets VARIABLE if it sends traces. A report is one datagram per batch. If it cannot be
sent at once it is dropped: traces never delay or fail a request. A worker needs no package for it
and knows nothing of the collector.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence

from handlers.errors import RequestError
from handlers.request import Answer, Message
from handlers.stages import Stages

# The path of the unix socket that the supervisor reads; without it, nothing is reported.
VARIABLE = "HANDLER_TRACES"
# Bytes of the largest report: hundreds of requests.
LARGEST = 2**17
# https://www.w3.org/TR/trace-context/: version, trace id, parent's span id, flags.
_TRACEPARENT = re.compile("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Reports:
    """Reports of a worker of ``model`` to the socket that ``environment`` names, if any."""

    def __init__(self, model: str, version: str, environment: Mapping[str, str]) -> None:
        self._about = {"model": model, "version": version, "process": os.getpid()}
        self._path = environment.get(VARIABLE)

    def send(
        self,
        messages: Sequence[Message | RequestError],
        answers: Sequence[Answer | RequestError],
        stages: Stages,
    ) -> None:
        """Report a batch that is answered, with its sampled requests."""
        if not self._path:
            return
        requests = [
            [message.headers["traceparent"], message.id, answer.code, _error(answer)]
            for message, answer in zip(messages, answers, strict=True)
            if isinstance(message, Message) and is_sampled(message.headers.get("traceparent", ""))
        ]
        if not requests:
            return
        # Durations are of the monotonic clock; this places them in the system's time.
        since = time.time_ns() - time.perf_counter_ns()

        def at(moment: float) -> int:
            return since + round(1e9 * moment)

        report = {
            **self._about,
            "members": len(messages),
            "began": at(stages.began),
            "ended": at(time.perf_counter()),
            "stages": {
                stage: [at(started), at(ended), stages.seconds[stage]]
                for stage, (started, ended) in stages.periods.items()
            },
            "requests": requests,
        }
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out, contextlib.suppress(OSError):
            out.setblocking(False)
            out.sendto(json.dumps(report).encode(), self._path)


def is_sampled(traceparent: str) -> bool:
    """Whether the header asks for spans; false if it is invalid."""
    return bool(_TRACEPARENT.fullmatch(traceparent)) and int(traceparent[-2:], 16) & 1 == 1


def _error(answer: Answer | RequestError) -> str:
    return type(answer).__name__ if isinstance(answer, RequestError) else ""
