"""The part of a worker's report that spans are made of: which requests are traced, and their times.

It is there only if the environment variable TRACES is set, as `make serve` does if it sends traces.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

from handlers.errors import RequestError
from handlers.request import Answer, Message
from handlers.stages import Stages

TRACES = "VISION_TRACES"
# https://www.w3.org/TR/trace-context/: version, trace id, parent's span id, flags.
_TRACEPARENT = re.compile("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def traced(
    messages: Sequence[Message | RequestError],
    answers: Sequence[Answer | RequestError],
    stages: Stages,
) -> dict[str, Any] | None:
    """The sampled requests of a batch that is answered, or None if there are none.

    Each is a list of its traceparent, id, status and type of error (empty: none). ``period`` is
    that of the batch and ``stages`` are those of its stages, in nanoseconds since 1970.
    """
    requests = [
        [message.headers["traceparent"], message.id, answer.code, _error(answer)]
        for message, answer in zip(messages, answers, strict=True)
        if isinstance(message, Message) and is_sampled(message.headers.get("traceparent", ""))
    ]
    if not requests:
        return None
    # Durations are of the monotonic clock; this places them in the system's time.
    since = time.time_ns() - time.perf_counter_ns()

    def at(*moments: float) -> list[int]:
        return [since + round(1e9 * moment) for moment in moments]

    return {
        "period": at(stages.began, time.perf_counter()),
        "stages": {stage: at(*period) for stage, period in stages.periods.items()},
        "requests": requests,
    }


def is_sampled(traceparent: str) -> bool:
    """Whether the header asks for spans; false if it is invalid."""
    return bool(_TRACEPARENT.fullmatch(traceparent)) and int(traceparent[-2:], 16) & 1 == 1


def _error(answer: Answer | RequestError) -> str:
    return type(answer).__name__ if isinstance(answer, RequestError) else ""
