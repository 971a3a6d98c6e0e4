"""The arguments of the application, in a Serve configuration file too, and an archive's `ray:`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

APPLICATION = "vision"
_URL = ("http://", "https://")


class ArchiveOptions(BaseModel):
    """``source`` is a path that every node has, or a URL, which needs its sha256.

    ``ray`` has keys of Placement, which come before those in the archive.
    """

    model_config = ConfigDict(extra="forbid")

    source: str
    sha256: str | None = Field(None, pattern="^[0-9a-f]{64}$")
    ray: dict[str, float] = Field(default_factory=dict)

    @property
    def is_remote(self) -> bool:
        return self.source.startswith(_URL)

    @model_validator(mode="after")
    def _check(self) -> ArchiveOptions:
        if self.is_remote and self.sha256 is None:
            raise ValueError(f"{self.source} is downloaded, so it needs its sha256")
        return self


class Options(BaseModel):
    """What to serve and how.

    ``device`` auto is the GPU if the cluster has one. ``precision`` and ``engine`` apply to every
    model; None means the value in its archive. ``workers`` fixes the replicas of each model.
    ``threads`` are those of a replica's network on a CPU; None is as many as the CPUs that Ray
    reserves for it. ``fronts`` are the replicas of the front, ``request_bytes`` the most bytes of
    a request. In each front, requests of more than 1 MiB get half of ``memory_bytes``; more are
    refused. ``api_keys`` is the path of a keys file, which every node has.
    """

    model_config = ConfigDict(extra="forbid")

    archives: list[ArchiveOptions] = Field(min_length=1)
    device: Literal["auto", "gpu", "cpu"] = "auto"
    precision: str | None = None
    engine: str | None = None
    workers: int | None = Field(None, ge=1)
    threads: int | None = Field(None, ge=1)
    fronts: int = Field(1, ge=1)
    request_bytes: int = Field(24 * 2**20, ge=1)
    memory_bytes: int = Field(2**30, ge=1)
    api_keys: str | None = None


class Placement(BaseModel):
    """The section ``ray:`` of an archive's YAML.

    ``num_cpus`` and ``num_gpus`` are what Ray reserves for a replica; ``num_gpus`` counts only if
    the model is served on GPUs. The replicas vary between ``min_replicas`` and ``max_replicas``
    so that each has ``target_ongoing_requests``, after it was more or less for ``upscale_delay_s``
    or ``downscale_delay_s`` seconds. A node has at most ``max_replicas_per_node`` of them.
    """

    model_config = ConfigDict(extra="forbid")

    num_cpus: float = Field(1, ge=0)
    num_gpus: float = Field(1, gt=0)
    min_replicas: int = Field(1, ge=1)
    max_replicas: int = Field(1, ge=1)
    max_replicas_per_node: int | None = Field(None, ge=1, le=100)
    target_ongoing_requests: float = Field(8, gt=0)
    upscale_delay_s: float = Field(30, ge=0)
    downscale_delay_s: float = Field(600, ge=0)

    @model_validator(mode="after")
    def _check(self) -> Placement:
        if self.min_replicas > self.max_replicas:
            raise ValueError("min_replicas is above max_replicas")
        return self

    @classmethod
    def of(
        cls,
        yaml: Mapping[str, Any],
        chosen: Mapping[str, float] | None = None,
        workers: int | None = None,
    ) -> Placement:
        """The placement of an archive with ``yaml``, where ``chosen`` comes before its section.

        ``workers`` fixes the number of replicas. Without ``min_replicas``, TorchServe's minWorkers
        and maxWorkers count.
        """
        low, high = yaml.get("minWorkers", 1), yaml.get("maxWorkers", 1)
        low, high = (low, high) if 0 < low <= high else (1, 1)
        section = {**(yaml.get("ray") or {}), **(chosen or {})}
        defaults = {
            "min_replicas": low,
            "max_replicas": max(high, section.get("min_replicas", low)),
            "target_ongoing_requests": yaml.get("batchSize", 1),
        }
        fixed = {"min_replicas": workers, "max_replicas": workers} if workers else {}
        return cls(**{**defaults, **section, **fixed})
