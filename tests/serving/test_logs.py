"""Reading TorchServe's log: which model failed, and which line says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from serving.logs import Activity, LogTail, ServerLogs, find_failure

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
    "handlers.errors.LoadError: cyclegan.pt is damaged",
)
DIRECT = ("The above exception was the direct cause of the following exception:", "")
DURING = ("During handling of the above exception, another exception occurred:", "")


def test_nothing_is_wrong_while_workers_load() -> None:
    assert find_failure(STARTED, output("Torch worker started.")) is None


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (OWN, OWN[-1]),
        ((*CAUSE, *DIRECT, *OWN), OWN[-1]),
        # After a failed import TorchServe tries its own handlers: the first traceback is ours.
        ((*CAUSE, *DURING, *OWN), CAUSE[2]),
    ],
)
def test_the_most_useful_exception(lines: tuple[str, ...], expected: str) -> None:
    failure = find_failure(STARTED + DIED, output("Backend worker process died.", *lines))
    assert failure is not None
    assert (failure.model, failure.line) == ("cyclegan", expected)
    assert failure.output.endswith(expected)


def test_another_model_is_not_blamed() -> None:
    failure = find_failure(DIED, output(*OWN, model="resnet101"))
    assert failure is not None
    assert failure.model == "cyclegan"
    assert "without an exception" in failure.line


def test_the_output_is_short() -> None:
    frames = [f'  File "module.py", line {i}, in step\n    step({i})' for i in range(100)]
    lines = [CAUSE[0], *"\n".join(frames).splitlines(), OWN[-1]]
    failure = find_failure(DIED, output(*lines))
    assert failure is not None
    assert len(failure.output.splitlines()) <= 8
    assert "step(99)" in failure.output
    assert failure.output.endswith(OWN[-1])


def test_a_worker_without_an_exception_is_quoted() -> None:
    failure = find_failure(DIED, output("one", "what it said last"))
    assert failure is not None
    assert failure.output.endswith("what it said last")


# TorchServe's log4j writes a client's line breaks as \\n; str.splitlines() knows others.
SEPARATORS = ("\\n", "\r", "\v", "\f", "\x1c", "\x85", "\u2028", " ")
REQUEST = "2026-11-23T06:25:26,100 [ERROR] epollEventLoopGroup-3-1 org.pytorch.serve.http.X - "
_EVENT = DIED.partition("W-9001-cyclegan_1.0 State")[0]
WORK = f"{_EVENT}Flushing req.cmd PREDICT repeats 1 to backend at: 1795659321463\n"
ANSWERED = f"{_EVENT}Backend response time: 62\n"
RETRY = f"{_EVENT}Retry worker: 9001 in 1 seconds.\n"


@pytest.mark.parametrize("separator", SEPARATORS)
@pytest.mark.parametrize("forged", [DIED, STARTED, WORK])
def test_what_a_client_sends_is_no_line_of_the_log(separator: str, forged: str) -> None:
    log = f"{REQUEST}Bad string: '%zz{separator}{forged.strip()}{separator}'\n"
    assert find_failure(log, "") is None
    assert find_failure(f"{REQUEST}{separator}{forged.strip()}\n", "") is None
    activity = Activity()
    assert activity.update(log, 0.0) == set()
    assert activity.workers == []


def test_changes_and_work_among_other_lines() -> None:
    activity = Activity()
    assert activity.update(f"{REQUEST}one\n{STARTED}{WORK}{REQUEST}two\n", 7.0) == {"cyclegan/1.0"}
    (worker,) = activity.workers
    assert (worker.id, worker.key, worker.state) == ("9001", "cyclegan/1.0", "WORKER_STARTED")
    assert (worker.busy_since, activity.busy) == (7.0, True)
    assert activity.update(ANSWERED, 8.0) == set()
    assert not activity.busy


def test_loading_is_no_batch() -> None:
    activity = Activity()
    activity.update(STARTED + WORK.replace("PREDICT", "LOAD"), 0.0)
    assert not activity.busy


def test_a_worker_that_torchserve_will_not_start_again() -> None:
    activity = Activity()
    activity.update(STARTED + WORK + DIED, 3.0)
    (worker,) = activity.workers
    assert (worker.busy_since, worker.stopped_since) == (None, 3.0)
    activity.update(RETRY, 4.0)
    assert worker.stopped_since is None


def test_a_log_that_is_replaced_is_read_to_its_end(tmp_path: Path) -> None:
    log = tmp_path / "ts_log.log"
    log.write_text("before\n")
    tail = LogTail(log)
    assert tail.advance() == ""
    with log.open("a") as file:
        file.write("one\ntw")
    assert tail.advance() == "one\n"
    with log.open("a") as file:
        file.write("o\n")
    log.rename(tmp_path / "ts_log.1.log")
    log.write_text("three\n")
    assert tail.advance() == "two\nthree\n"
    tail.close()


def test_an_archive_that_torchserve_refuses() -> None:
    log = (
        "2026-11-23T06:25:26,962 [WARN ] main org.pytorch.serve.ModelServer - Failed to load model:"
        " a.mar org.pytorch.serve.archive.model.InvalidModelException: no handler\\n\tat x.y(Z:1)\n"
    )
    failure = find_failure(log, "")
    assert failure is not None
    assert failure.model == "a.mar"
    assert failure.line == "org.pytorch.serve.archive.model.InvalidModelException: no handler"


def test_a_log_that_ends_within_the_traceback() -> None:
    """The traceback comes through another pipe, after the state."""
    failure = find_failure(DIED, output("Traceback (most recent call last):", '  File "x", line 1'))
    assert failure is not None
    assert "exception" in failure.line


def test_a_version_that_ends_meanwhile_is_not_the_one_that_loads(tmp_path: Path) -> None:
    """One that a rollout has replaced is unloaded, and its workers end."""
    (tmp_path / "ts_log.log").touch()
    logs = ServerLogs(tmp_path)
    (tmp_path / "ts_log.log").write_text(DIED)
    assert logs.find_failure("cyclegan/2.0".__eq__) is None
    assert logs.find_failure("cyclegan/1.0".__eq__) is not None


def test_a_model_that_has_recovered_hides_no_other() -> None:
    other = DIED.replace("cyclegan", "resnet101")
    assert other != DIED
    failure = find_failure(DIED + other, "", "cyclegan/1.0".__ne__)
    assert failure is not None
    assert failure.model == "resnet101"
