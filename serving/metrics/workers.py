"""What the living workers have reported: what each serves, and the memory of its device."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psutil

# Labels of the info metric, after `model`.
SERVES = ("task", "weights", "precision", "engine", "device", "version")


@dataclass(frozen=True)
class Memory:
    """Bytes of a device."""

    used: int
    total: int


class Reported:
    """The last report of each worker that lives. Several threads use it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._reports: dict[int, Mapping[str, Any]] = {}

    def update(self, report: Mapping[str, Any]) -> None:
        """Keep the report of a worker in place of its last one."""
        with self._lock:
            self._reports[report["process"]] = report

    def _living(self) -> list[Mapping[str, Any]]:
        with self._lock:
            self._reports = {
                pid: report for pid, report in self._reports.items() if psutil.pid_exists(pid)
            }
            return list(self._reports.values())

    def serves(self) -> set[tuple[str, ...]]:
        """The model and the values of SERVES, once for all workers that serve the same."""
        return {
            (report["model"], *(report["serves"][name] for name in SERVES))
            for report in self._living()
        }

    def memory(self) -> dict[str, Memory]:
        """The memory of each device that is not a CPU."""
        return {
            report["serves"]["device"]: Memory(**report["memory"])
            for report in self._living()
            if report["memory"]
        }
