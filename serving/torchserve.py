"""Runs TorchServe, with its workers, as a child process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import replace

from handlers.stages import REPORTS
from handlers.traces import TRACES
from serving.children import bound
from serving.logs import ServerLogs
from serving.plan import Plan
from serving.runfolder import RunFolder
from serving.sockets import Sockets
from serving.versions import Served

# TorchServe stops within seconds; after this time it is killed.
STOP_TIMEOUT_S = 20
# Killed processes that nobody has reaped still count as processes of the group.
KILL_TIMEOUT_S = 2


class TorchServe:
    """TorchServe as ``plan`` describes it. ``start`` may be called again once it has ended.

    Each start loads the versions in ``served``; TorchServe's default is each model's first.
    ``logs`` are those since the last start.
    """

    def __init__(self, plan: Plan, run: RunFolder, sockets: Sockets, served: Served) -> None:
        self._plan = plan
        self._served = served
        self._run = run
        self._sockets = sockets
        self._child: subprocess.Popen[bytes] | None = None
        run.logs.mkdir(parents=True, exist_ok=True)
        run.java_log.write_bytes(b"")
        self.logs = ServerLogs(run.logs)

    def start(self) -> None:
        """Start it in a session of its own: Ctrl-C in a terminal then reaches this process only."""
        self.kill()  # the workers of a TorchServe that has ended
        sockets = self._sockets
        for left in (sockets.inference, sockets.management, sockets.metrics, sockets.key_file):
            left.unlink(missing_ok=True)
        properties = self._run.path / "config.properties"
        planned = replace(self._plan, models=tuple(self._served.accepted))
        self._plan.config.write(properties, **planned.properties(sockets))
        self.logs = ServerLogs(self._run.logs)
        logs = str(self._run.logs.resolve())
        # TorchServe prints its whole configuration to its standard output, and warnings to its
        # standard error, which is ours.
        with self._run.java_log.open("ab") as output:
            self._child = subprocess.Popen(
                bound(self._plan.command(properties, sockets.folder)),
                cwd=sockets.folder,  # TorchServe writes key_file.json there
                env={
                    **self._plan.environment,
                    "LOG_LOCATION": logs,
                    "METRICS_LOCATION": logs,
                    REPORTS: str(sockets.reports),
                    TRACES: "1" if self._plan.traces else "",
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                start_new_session=True,
            )

    def ended(self) -> int | None:
        """Its exit status, or None while it runs."""
        return self._child.poll() if self._child else None

    def output(self) -> str:
        """What it has logged and printed."""
        return self.logs.ts.read() + self._run.java_log.read_text(errors="replace")

    def terminate(self) -> None:
        if self._child:
            self._child.terminate()

    def end(self) -> None:
        """End it and every process that it started."""
        if self._child:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(STOP_TIMEOUT_S)
            self.kill()

    def kill(self) -> None:
        """Kill it and every process that it started."""
        if self._child:
            deadline = time.monotonic() + KILL_TIMEOUT_S
            with contextlib.suppress(ProcessLookupError):
                while time.monotonic() < deadline:
                    os.killpg(self._child.pid, signal.SIGKILL)  # workers too
                    self._child.wait()
                    time.sleep(0.01)
        self.logs.ts.close()
