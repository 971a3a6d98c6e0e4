"""How TorchServe and Ray serve an archive by default: the values of the archive's YAML."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

from handlers.settings import Settings

_NUMBER, _ABOVE_0 = "a number of 0 or more", "a number above 0"
_COUNT, _COUNT_100 = "a whole number of 1 or more", "a whole number from 1 to 100"
_HOLDS: dict[str, Callable[[float], bool]] = {
    _NUMBER: lambda value: value >= 0,
    _ABOVE_0: lambda value: value > 0,
    _COUNT: lambda value: value >= 1 and value == int(value),
    _COUNT_100: lambda value: 1 <= value <= 100 and value == int(value),
}
# The section `ray`; docs/scaling.md explains its names.
_RAY = {
    "num_cpus": _NUMBER,
    "num_gpus": _ABOVE_0,
    "min_replicas": _COUNT,
    "max_replicas": _COUNT,
    "max_replicas_per_node": _COUNT_100,
    "target_ongoing_requests": _ABOVE_0,
    "upscale_delay_s": _NUMBER,
    "downscale_delay_s": _NUMBER,
}


@dataclass(frozen=True)
class Serving:
    """Serving defaults of a network. Raises ValueError for values that cannot work.

    ``workers``             workers per model; `make serve` starts one per GPU instead
    ``batch_size``          requests in a batch at most
    ``max_batch_delay_ms``  how long a lone request waits for others. Not 0: TorchServe then takes
                            two requests at a time, no matter how many wait
    ``job_queue_size``      waiting requests of all workers; further ones are answered 503 at once.
                            None is TorchServe's default, 100
    ``response_timeout_s``  TorchServe kills a worker whose batch takes longer; decoding may use
                            half of it
    ``startup_timeout_s``   the same for a worker that loads its model
    ``retry_timeout_s``     how long TorchServe restarts a worker that cannot start
    ``precision``           ``auto`` is bfloat16 on a CPU that computes it natively and float16 on a
                            GPU if the weights passed the gate for that type, else float32
    ``engine``              ``auto`` is OpenVINO on a CPU if the export proved the network in it,
                            else TorchScript
    ``limits``              what one request may cost; see ``handlers/pictures/limits.py``
    ``cpu_batch_pixels``    input pixels that go through the network together on a CPU; None is all
    ``ray``                 placement and scaling of replicas under Ray; see docs/scaling.md
    """

    workers: int = 1
    batch_size: int = 8
    max_batch_delay_ms: int = 1
    job_queue_size: int | None = None
    response_timeout_s: int = 120
    startup_timeout_s: int = 300
    retry_timeout_s: int = 300
    precision: str = "auto"
    engine: str = "auto"
    limits: Mapping[str, float] = field(default_factory=dict)
    cpu_batch_pixels: int | None = None
    ray: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for section in ("limits", "ray"):
            if not isinstance(getattr(self, section), Mapping):
                raise ValueError(f"serving: {section} must be a map of names to numbers")
        for name, value in vars(self).items():
            optional = name in ("job_queue_size", "cpu_batch_pixels")
            if name in ("precision", "engine", "limits", "ray") or (optional and value is None):
                continue
            if type(value) is not int or value < 1:
                raise ValueError(f"serving: {name} must be a whole number above 0, not {value!r}")
        try:
            Settings.from_yaml({"handler": self._handler()})
        except ValueError as error:
            raise ValueError(f"serving: {error}") from error
        self._check_ray()

    def _check_ray(self) -> None:
        for name, value in self.ray.items():
            if name not in _RAY:
                raise ValueError(f"serving: ray has no {name!r}: there are {', '.join(_RAY)}")
            if type(value) not in (int, float) or not _HOLDS[_RAY[name]](value):
                raise ValueError(f"serving: ray: {name} must be {_RAY[name]}, not {value!r}")
        low = self.ray.get("min_replicas", self.workers)
        high = self.ray.get("max_replicas", low)
        if low > high:
            raise ValueError(f"serving: ray: max_replicas is {high}, below min_replicas, {low}")

    def to_yaml(self) -> str:
        """The archive's YAML, in TorchServe's names."""
        config: dict[str, Any] = {
            # TorchServe ignores each of the two without the other, and would then start a worker
            # per CPU core, each with as many threads as there are cores.
            "minWorkers": self.workers,
            "maxWorkers": self.workers,
            "deviceType": "gpu",  # the CPU if there is no GPU
            "batchSize": self.batch_size,
            "maxBatchDelay": self.max_batch_delay_ms,
            "responseTimeout": self.response_timeout_s,
            "startupTimeout": self.startup_timeout_s,
            "maxRetryTimeoutInSec": self.retry_timeout_s,
        }
        if self.job_queue_size is not None:
            config["jobQueueSize"] = self.job_queue_size
        if handler := self._handler():
            config["handler"] = handler
        if self.ray:
            config["ray"] = dict(self.ray)
        return yaml.safe_dump(config, sort_keys=False)

    def _handler(self) -> dict[str, Any]:
        """The section that our handler reads; only what differs from its defaults."""
        section: dict[str, Any] = {}
        if self.precision != "auto":
            section["precision"] = self.precision
        if self.engine != "auto":
            section["engine"] = self.engine
        if self.limits:
            section["limits"] = dict(self.limits)
        if self.cpu_batch_pixels is not None:
            section["cpu_batch_pixels"] = self.cpu_batch_pixels
        return section
