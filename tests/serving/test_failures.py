"""Reading TorchServe's log: which model failed, and which line says why."""

from __future__ import annotations

import pytest

from serving.failures import find

DIED = (
    "2026-11-23T06:25:26,962 [DEBUG] W-9001-cyclegan_1.0 org.pytorch.serve.wlm.WorkerThread"
    " - W-9001-cyclegan_1.0 State change WORKER_STARTED -> WORKER_STOPPED\n"
)
STARTED = DIED.replace("WORKER_STARTED -> WORKER_STOPPED", "null -> WORKER_STARTED")


def output(*lines: str, model: str = "cyclegan") -> str:
    prefix = f"2026-11-23T06:25:26,937 [INFO ] W-9001-{model}_1.0-stdout MODEL_LOG - "
    return "".join(f"{prefix}{line}\n" for line in lines)


CAUSE = (
    "Traceback (most recent call last):",
    '  File "base.py", line 162, in _load',
    "RuntimeError: failed finding central directory",
    "",
)
OWN = (
    "Traceback (most recent call last):",
    '  File "base.py", line 164, in _load',
    "handlers.base.LoadError: cyclegan.pt is damaged",
)
DIRECT = ("The above exception was the direct cause of the following exception:", "")
DURING = ("During handling of the above exception, another exception occurred:", "")


def test_nothing_is_wrong_while_workers_load() -> None:
    assert find(STARTED, output("Torch worker started.")) is None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (OWN, OWN[-1]),
        ((*CAUSE, *DIRECT, *OWN), OWN[-1]),
        # TorchServe tries its own handlers after a failed import: the first traceback is ours.
        ((*CAUSE, *DURING, *OWN), CAUSE[2]),
    ],
)
def test_the_exception_that_tells_most(lines: tuple[str, ...], expected: str) -> None:
    failure = find(STARTED + DIED, output("Backend worker process died.", *lines))
    assert failure is not None
    assert (failure.model, failure.line) == ("cyclegan", expected)
    assert failure.traceback.startswith("Traceback")
    assert failure.traceback.endswith(expected)


def test_another_model_is_not_blamed() -> None:
    failure = find(DIED, output(*OWN, model="resnet101"))
    assert failure is not None
    assert failure.model == "cyclegan"
    assert "without a word" in failure.line
