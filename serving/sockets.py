"""The unix sockets of a running server, in a folder that only its user can enter."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sockets:
    """``folder`` must have a short path: a socket's may have 107 bytes."""

    folder: Path
    grpc_port: int = 0

    @property
    def inference(self) -> Path:
        """TorchServe's inference API."""
        return self.folder / "inference"

    @property
    def management(self) -> Path:
        """TorchServe's management API."""
        return self.folder / "management"

    @property
    def metrics(self) -> Path:
        """TorchServe's metrics API."""
        return self.folder / "metrics"

    @property
    def admin(self) -> Path:
        """Envoy's administration."""
        return self.folder / "admin"

    @property
    def control(self) -> Path:
        """The supervisor's health, over HTTP."""
        return self.folder / "control"

    @property
    def admission(self) -> Path:
        """The supervisor's gRPC server: the gateway's queue, and health."""
        return self.folder / "admission"
